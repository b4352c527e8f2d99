"""The commands that measure and learn: compare, train, tune."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import fixedpoint as fp
from fixedpoint.experiments import tuning
from fixedpoint.experiments.evaluation import generator
from fixedpoint.experiments.report.table import WIDTH
from fixedpoint.learning.trainer import Trainer
from fixedpoint.learning.training import TRAINED
from maps.elastic_net import RandomElasticNet
from tests import support
from tests.cli.conftest import Command

SHIFTS = RandomElasticNet.shifts


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


# -- compare


def test_compare_prints_and_writes(command: Command, tmp_path: Path) -> None:
    options = ["--accelerators", "picard, anderson-2,picard", "--instances", 4, "--steps", 12, "--seed", 1]
    code, out, err = command("compare", "elastic-net", *options)
    assert (code, err) == (0, "")
    assert widest(out) <= WIDTH
    assert "…" not in out
    assert "not reached" in out
    folder = tmp_path / "results" / "elastic-net"
    assert sorted(path.name for path in folder.iterdir()) == ["convergence.png", "records.jsonl"]
    assert (folder / "convergence.png").read_bytes().startswith(b"\x89PNG")
    found = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    rows = [(record["accelerator"], record["variant"]) for record in found]
    assert rows == [(name, variant) for variant in ("default", "tuned") for name in ("picard", "anderson-2")]
    for record in found:
        assert (record["instances"], record["steps"], record["seed"]) == (4, 12, 1)


def test_compare_has_outside_solvers(command: Command, tmp_path: Path) -> None:
    options = ["--accelerators", "picard", "--instances", 2, "--steps", 3, "--out", "here"]
    code, out, err = command("compare", "diabetes-lasso", *options)
    assert (code, err) == (0, "")
    names = ["scs, its defaults", "scs, our settings", "scs, our settings, eager"]
    found = map(json.loads, (tmp_path / "here" / "records.jsonl").read_text().splitlines())
    assert [record["accelerator"] for record in found if record["peer"]] == names
    assert all(" ".join(out.split()).count(f"{name} ") >= 2 for name in names)


def test_compare_does_without_matplotlib(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, _ = command("compare", "affine", "--accelerators", "picard", "--instances", 2, "--steps", 3)
    assert code == 0
    assert 'Plot: none, matplotlib is missing (pip install "fixedpoint-acceleration[plot]")' in out
    assert [path.name for path in (tmp_path / "results" / "affine").iterdir()] == ["records.jsonl"]


def test_a_failing_writer_keeps_the_old_results(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = ["compare", "affine", "--accelerators", "picard", "--instances", 2, "--steps", 3, "--out", tmp_path / "r"]
    assert command(*compare).code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    assert len(before) == 2

    def fail(self: Figure, file: Path, **kwargs: Any) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        support.fill_disk(patch)
        code, _, err = command(*compare, "--seed", 1)
        assert (code, err) == (2, "error: disk full\n")
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        assert command(*compare).code == 2
    assert set(before) == {path.name for path in (tmp_path / "r").iterdir()}
    assert (tmp_path / "r" / "convergence.png").read_bytes() == before["convergence.png"]


def test_compare_shows_shifts_and_a_named_setting(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RandomElasticNet, "settings", {"paper": {"beta": 0.25}})
    monkeypatch.setattr(fp.accelerators, "folders", list)
    compare = ["compare", "elastic-net", "--setting", "paper", "--instances", 2, "--steps", 3]
    code, out, err = command(*compare, "--accelerators", "picard", "--shifts", "all")
    assert (code, err) == (0, "")
    assert out.startswith("elastic-net, setting 'paper': 2 held-out instances")
    assert [line.rpartition(": ")[2] for line in out.splitlines() if line.startswith("Where")] == list(SHIFTS)
    assert "`fixedpoint train elastic-net --setting paper gru+anderson-2`" in out
    assert "`fixedpoint tune elastic-net --setting paper`" in out
    lines = (tmp_path / "results" / "elastic-net.paper" / "records.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [record["shift"] for record in found] == [None, *SHIFTS]
    assert {record["setting"] for record in found} == {"paper"}
    out = command(*compare, "--shifts", "size x2,noise x2").out
    assert [line.rpartition(": ")[2] for line in out.splitlines() if line.startswith("Where")] == [
        "size x2",
        "noise x2",
    ]


# -- train


def tiny(*more: object, accelerator: str = "gru", updates: int = 4) -> list[object]:
    """A training of a fraction of a second."""
    plan = ["--updates", updates, "--instances", 16, "--batch", 8, "--horizon", 3]
    options = ["validation=4", "evaluations=6", "validate_every=2", "gru.hidden=8"]
    given = [word for option in options for word in ("--option", option)]
    return ["train", "elastic-net", accelerator, *plan, *given, *more]


def test_what_was_trained_is_compared_and_solved_with(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp.accelerators, "folders", list)
    code, out, err = command(*tiny())
    assert (code, err) == (0, "")
    assert widest(out) <= WIDTH
    path = Path("fixedpoint-training") / "elastic-net" / "gru" / TRAINED
    assert "gru: 4 updates in " in out
    assert f"Weights: {path}\nCompare: fixedpoint compare elastic-net\n" in out
    trained = fp.load(path)
    assert trained.inner.hidden == 8
    assert trained.provenance["plan"]["horizon"] == 3
    _, out, _ = command("compare", "elastic-net", "--instances", 2, "--steps", 3)
    assert widest(out) <= WIDTH
    lines = (tmp_path / "results" / "elastic-net" / "records.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [r["accelerator"] for r in found if r["variant"] == "default"] == ["picard", "anderson-1", "anderson-2"]
    assert [r["training"]["updates"] for r in found if r["variant"] == "trained"] == [4]
    assert sum(line.startswith("gru ") for line in out.splitlines()) == 3, "errors, time and training"
    assert "Trained accelerators: none" not in out
    code, out, _ = command("check", "accelerator", path)
    assert (code, "rows-independent" in out) == (0, True)
    solve = ["--accelerator", "gru", "--instances", 2, "--max-evaluations", 5, "--out", "s.npz"]
    assert command("solve", "elastic-net", *solve).code == 1
    family = fp.families.create("elastic-net", **trained.provenance["family"]["options"])
    problem = family.sample(2, generator=generator(0, "test"))
    with np.load("s.npz") as saved:
        assert saved["x"].tolist() == fp.solve(family.map, problem, trained, max_evaluations=5).x.tolist()


def test_the_same_training_again_is_over_at_once(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["--out", "run", "--settings", "s.json"]
    tuning.save(Path("s.json"), "elastic-net", {"anderson-2": tuning.Tuned({"step": 1.5}, {"memory": 4}, 1.0)}, {})
    assert command(*tiny(*run, accelerator="gru+anderson-2", updates=2)).code == 0
    weights = fp.load("run/" + TRAINED).state_dict()
    plan = json.loads(Path("run/plan.json").read_text())
    assert plan["family"] == {"name": "elastic-net", "options": {"step": 1.5}}
    assert plan["options"]["inner"]["options"]["parts"][1]["options"]["memory"] == 4
    with monkeypatch.context() as patch:
        patch.delattr(Trainer, "_update")
        code, out, _ = command(*tiny(*run, accelerator="gru+anderson-2", updates=2))
    assert (code, "gru+anderson-2: 2 updates in " in out) == (0, True)
    again = fp.load("run/" + TRAINED).state_dict()
    assert all(torch.equal(weights[name], t) for name, t in again.items())
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    code, out, err = command(*tiny(*run, accelerator="gru+anderson-2", updates=3))
    assert (code, out) == (2, "")
    assert err == "error: out: run belongs to another run (plan.updates: 2 there, 3 asked); choose another folder\n"
    for line, difference in {"--option gru.steps=7": "inner", "--settings t.json": "family.options.step"}.items():
        tuning.save(Path("t.json"), "elastic-net", {}, {})
        code, _, err = command(*tiny(*run, *line.split(), accelerator="gru+anderson-2", updates=2))
        assert code == 2
        assert difference in err
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def test_a_named_setting_is_trained_in_a_folder_of_its_own(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RandomElasticNet, "settings", {"paper": {"beta": 0.25}})
    code, out, _ = command(*tiny("--setting", "paper", updates=1))
    assert code == 0
    assert "Compare: fixedpoint compare elastic-net --setting paper" in out
    path = Path("fixedpoint-training") / "elastic-net.paper" / "gru" / TRAINED
    assert fp.load(path).provenance["family"] == {"name": "elastic-net", "options": {"beta": 0.25}}
    compare = ["compare", "elastic-net", "--accelerators", "gru", "--instances", 2, "--steps", 3]
    assert command(*compare, "--setting", "paper").code == 0
    path.rename(path.parent / "gone")
    assert "has not been trained for elastic-net.paper" in command(*compare, "--setting", "paper").err


# -- tune


def test_tune_writes_what_compare_shows(command: Command, tmp_path: Path) -> None:
    budget = ["--instances", 2, "--steps", 5, "--trials", 10, "--accelerators"]
    code, out, err = command("tune", "elastic-net", *budget, "picard")
    assert (code, err) == (0, "")
    assert "picard: score" in out
    assert command("tune", "elastic-net", *budget, "momentum").code == 0
    content = json.loads((tmp_path / "fixedpoint-settings" / "elastic-net.json").read_text())
    assert list(content["accelerators"]) == ["momentum", "picard"]
    assert content["accelerators"]["picard"]["provenance"]["trials"] == 10
    _, out, _ = command("compare", "elastic-net", "--accelerators", "picard", "--instances", 2, "--steps", 3)
    assert "picard, tuned" in out
    assert "Tuned settings: fixedpoint-settings/elastic-net.json" in out


def test_tune_refuses_the_file_before_it_works(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tuning, "tune")
    (tmp_path / "s.json").write_text("{")
    code, _, err = command("tune", "affine", "--accelerators", "picard", "--out", "s.json")
    assert code == 2
    assert "settings file s.json: cannot be read" in err
