"""The command line: help that teaches, exit codes, files, and errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from matplotlib.figure import Figure

import fixedpoint as fp
from fixedpoint import tuning
from fixedpoint.cli.application import app
from fixedpoint.evaluation import generator
from fixedpoint.report.table import WIDTH
from fixedpoint.training import TRAINED
from fixedpoint.training.trainer import Trainer
from maps.elastic_net import RandomElasticNet
from tests import distributions, support
from tests.support import Outcome

Command = Callable[..., Outcome]

SHIFTS = RandomElasticNet.shifts


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`fixedpoint ARGUMENTS` in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return partial(support.command, capsys)


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


# -- help


def commands() -> Iterator[tuple[list[str], Any]]:
    def walk(path: list[str], found: Any) -> Iterator[tuple[list[str], Any]]:
        yield path, found
        for name, sub in getattr(found, "commands", {}).items():
            yield from walk([*path, name], sub)

    return walk([], typer.main.get_command(app))


@pytest.mark.parametrize(
    ("path", "found"), list(commands()), ids=lambda value: "-".join(value) if isinstance(value, list) else ""
)
def test_help_teaches(command: Command, path: list[str], found: Any) -> None:
    code, out, err = command(*path, "--help")
    assert (code, err) == (0, "")
    assert "…" not in out
    assert widest(out) <= WIDTH
    assert found.help
    for parameter in found.params:
        if parameter.name not in ("help", "version"):
            assert getattr(parameter, "help", None), f"{parameter.name} has no help"
            assert parameter.name.replace("_", "-") in out


def test_without_a_command_there_is_help(command: Command) -> None:
    code, out, err = command()
    assert code == 2
    assert "Start with" in out + err
    assert "error:" not in err


def test_the_version(command: Command) -> None:
    assert command("--version") == (0, fp.__version__ + "\n", "")


# -- list


def test_list_shows_every_plugin(command: Command) -> None:
    code, out, _ = command("list")
    assert code == 0
    assert widest(out) <= WIDTH
    assert "…" not in out
    assert "BROKEN" not in out
    first_words = [line.split(" ")[0] for line in out.splitlines()]
    for registry in (fp.maps, fp.accelerators, fp.cones, fp.families):
        assert {registry.kind, *registry.names()} <= set(first_words)


def test_list_marks_what_is_missing_or_broken(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributions.write(tmp_path / "site", "odd", {"maps:hopeless": "no_such_module_anywhere:Thing"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    code, out, _ = command("list")
    assert code == 0
    assert "cvxpy (missing)" in " ".join(out.split())
    assert "BROKEN" in out
    assert "[from odd]" in " ".join(out.split())


# -- solve


def test_solve_succeeds_when_all_converge(command: Command) -> None:
    code, out, err = command("solve", "affine", "--instances", 3)
    assert (code, err) == (0, "")
    assert out.count("CONVERGED") == 3
    assert "3 of 3 converged" in out
    assert widest(out) <= WIDTH


def test_solve_fails_when_one_does_not(command: Command) -> None:
    code, out, _ = command("solve", "affine", "--instances", 3, "--max-evaluations", 2)
    assert code == 1
    assert "0 of 3 converged" in out
    assert out.count("MAX_EVALUATIONS") == 3


def test_solve_writes_what_it_found(command: Command, tmp_path: Path) -> None:
    options = ["--instances", 2, "--accelerator", "picard", "--seed", 3, "--tolerance", 1e-9]
    code, out, _ = command("solve", "affine", *options, "--out", "deep/solution.npz")
    assert code == 0
    assert "deep/solution.npz" in out
    with np.load(tmp_path / "deep" / "solution.npz") as saved:
        assert saved["x"].shape == saved["output"].shape == (2, 10)
        assert (saved["status"] == fp.Status.CONVERGED).all()
        assert (saved["residual"] <= 1e-9).all()
        assert f"{saved['evaluations'][0]}" in out


def test_solve_uses_the_settings_that_are_near(command: Command, tmp_path: Path) -> None:
    entry = {"family": {"step": 7.0}, "accelerator": {}, "score": 1.0}
    (tmp_path / "fixedpoint-settings").mkdir()
    path = tmp_path / "fixedpoint-settings" / "elastic-net.json"
    path.write_text(json.dumps({"family": "elastic-net", "accelerators": {"picard": entry}}))
    code, _, err = command("solve", "elastic-net", "--accelerator", "picard")
    assert code == 2
    assert "elastic-net.json, picard: step: expected a number in (0, 2)" in err


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


# -- check


MUTATING = """
from accelerators import Picard

class Mutating(Picard):
    "Plain iteration that changes what it is shown."

    def step(self, at, state):
        at.x.add_(1)
        return at.fx, state
"""


def test_check_reports_and_fails_by_exit_code(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"accelerators:mutating": "mutating_plugin:Mutating"}
    distributions.write(tmp_path / "site", "odd", points, {"mutating_plugin.py": MUTATING})
    monkeypatch.syspath_prepend(tmp_path / "site")
    code, out, _ = command("check", "accelerator", "picard")
    assert code == 0
    assert "inputs-untouched" in out
    code, out, _ = command("check", "accelerator", "mutating")
    assert code == 1
    assert "FAIL  inputs-untouched" in out


def test_check_map_reports_every_family(command: Command) -> None:
    code, out, _ = command("check", "map", "affine")
    assert code == 0
    assert "affine: shape-and-dtype" in out


# -- what the user may get wrong

SETTINGS = {
    "corrupt": "{",
    "foreign": json.dumps({"family": "lasso", "accelerators": {}}),
    "unfit": json.dumps(
        {"family": "affine", "accelerators": {"picard": {"family": {"sise": 3}, "accelerator": {}, "score": 1}}}
    ),
}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("fly", ["fly"]),
        ("solve", ["family"]),
        ("solve affine --frobnicate 3", ["--frobnicate"]),
        ("solve afine", ["family", "'afine'", "did you mean 'affine'"]),
        ("compare afine", ["family", "'afine'", "did you mean 'affine'"]),
        ("tune afine --trials 10", ["family", "'afine'", "did you mean 'affine'"]),
        ("check map afine", ["map", "'afine'", "did you mean 'affine'"]),
        ("check accelerator picart", ["accelerator", "'picart'", "did you mean 'picard'"]),
        ("check accelerator gru.safetensors", ["checkpoint gru.safetensors", "no such file"]),
        ("check accelerator broken.safetensors", ["checkpoint broken.safetensors", "truncated or damaged"]),
        ("solve affine --accelerator picart", ["accelerator", "'picart'", "did you mean 'picard'"]),
        ("compare affine --accelerators picard,picart", ["accelerator", "'picart'", "did you mean 'picard'"]),
        ("tune affine --accelerators picart --trials 10", ["accelerator", "'picart'"]),
        ("compare affine --accelerators ,", ["accelerators", "at least one"]),
        ("compare affine --accelerators=", ["accelerators", "at least one"]),
        ("tune affine --accelerators ,", ["accelerators", "at least one"]),
        ("solve affine --seed -1", ["--seed"]),
        ("compare affine --seed -1", ["--seed"]),
        ("tune affine --seed -1", ["--seed"]),
        ("solve affine --instances 0", ["--instances"]),
        ("solve affine --instances two", ["--instances"]),
        ("solve affine --tolerance nan", ["tolerance", "nan"]),
        ("solve affine --tolerance -1", ["tolerance", "-1"]),
        ("solve affine --tolerance small", ["--tolerance"]),
        ("solve affine --max-evaluations 0", ["--max-evaluations"]),
        ("compare affine --steps 0", ["--steps"]),
        ("tune affine --trials 3", ["--trials"]),
        ("solve affine --out file/below/s.npz", ["out", "file/below"]),
        ("solve affine --out folder", ["out", "folder"]),
        ("compare affine --out file", ["out", "file"]),
        ("compare affine --out file/below", ["out", "file/below"]),
        ("compare affine --out /dev/null/x", ["out", "/dev/null/x"]),
        ("tune affine --out file/below/s.json", ["out", "file/below"]),
        ("tune affine --out folder", ["out", "folder"]),
        ("tune affine --out corrupt", ["settings file corrupt"]),
        ("tune affine --out foreign", ["settings file foreign", "'lasso'"]),
        ("solve affine --settings nowhere", ["settings", "nowhere"]),
        ("solve affine --settings folder", ["settings", "folder"]),
        ("solve affine --settings corrupt", ["settings file corrupt"]),
        ("solve affine --settings foreign", ["settings file foreign", "'lasso'"]),
        ("compare affine --settings corrupt", ["settings file corrupt"]),
        ("compare affine --settings foreign", ["settings file foreign", "'lasso'"]),
        ("compare affine --settings unfit --accelerators picard", ["settings file unfit", "picard", "sise"]),
        ("solve affine --setting paper", ["setting", "affine has no 'paper'", "none"]),
        ("tune affine --setting paper --trials 10", ["setting", "affine has no 'paper'", "none"]),
        ("compare affine --setting paper", ["setting", "affine has no 'paper'", "none"]),
        ("compare affine --shifts storm", ["shift", "affine has no 'storm'", "none"]),
        ("compare affine --shifts ,", ["shifts", "at least one"]),
        ("compare affine --accelerators lstm", ["'lstm'", "not been trained", "`fixedpoint train affine lstm`"]),
        ("solve affine --accelerator lstm+picard", ["'lstm+picard'", "`fixedpoint train affine lstm+picard`"]),
        ("train afine gru", ["family", "'afine'", "did you mean 'affine'"]),
        ("train affine gruu", ["accelerator", "'gruu'", "did you mean 'gru'"]),
        ("train affine gru+", ["accelerator", "'gru+'"]),
        ("train affine gru+picard+picard", ["steps", "[20, None]"]),
        ("train affine", ["accelerator"]),
        ("train affine gru --setting paper", ["setting", "affine has no 'paper'"]),
        ("train affine gru --settings nowhere", ["settings", "nowhere"]),
        ("train affine gru --out file/below", ["out", "file/below"]),
        ("train affine gru --out corrupt", ["out", "corrupt"]),
        ("train affine gru --horizon 0", ["horizon", "0"]),
        ("train affine gru --horizon many", ["--horizon", "integer"]),
        ("train affine gru --updates 0", ["updates", "0"]),
        ("train affine gru --loss least", ["loss", "'least'", "log-error"]),
        ("train affine gru --weights most", ["weights", "'most'", "late"]),
        ("train affine gru --batch 600", ["batch", "600", "500"]),
        ("train affine gru --learning-rate nan", ["learning_rate", "nan"]),
        ("train affine gru --seed -1", ["--seed"]),
        ("train affine gru --option hidden", ["option", "NAME.KEY=VALUE", "'hidden'"]),
        ("train affine gru --option =3", ["option", "NAME.KEY=VALUE", "'=3'"]),
        ("train affine gru --option lstm.hidden=3", ["'gru'", "no part named", "lstm"]),
        ("train affine gru --option gru.hiden=3", ["'hiden'"]),
        ("train affine gru --option gru.hidden=0", ["hidden", "0"]),
        ("train affine gru --option clipp=3", ["'clipp'"]),
        ("train affine gru --option clip=none", ["clip", "'none'"]),
        ("train affine gru --option horizon=3", ["horizon", "--horizon"]),
        ("train elastic-net anderson-2", ["accelerator", "nothing to learn"]),
    ],
)
def test_mistakes_end_in_one_line(command: Command, tmp_path: Path, line: str, named: list[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, text in {**SETTINGS, "broken.safetensors": "{"}.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command(*line.split(" "))
    assert code == 2
    assert out == ""
    (message,) = err.splitlines()
    assert message.startswith("error: ")
    for word in named:
        assert word in message
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("what", ["gru --loss solution", "mean-start"])
def test_training_on_solutions_that_are_not_there_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    support.take_solutions_away(monkeypatch)
    code, out, err = command("train", "elastic-net", *what.split(), "--instances", 32)
    assert (code, out) == (2, "")
    assert "needs solutions to learn from, but RandomElasticNet has none" in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_a_missing_module_names_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for line in ("solve diabetes-lasso", "compare diabetes-lasso", "tune diabetes-lasso --trials 10"):
        code, out, err = command(*line.split())
        assert (code, out) == (2, "")
        assert err == "error: family 'diabetes-lasso' needs sklearn: pip install \"fixedpoint-acceleration[all]\"\n"


def test_a_bug_is_not_dressed_as_a_mistake(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fp, "solve", bug)
    code, _, err = command("solve", "affine")
    assert code == 2
    assert err.startswith("error: RuntimeError: a bug (FIXEDPOINT_DEBUG=1")
    monkeypatch.setenv("FIXEDPOINT_DEBUG", "1")
    with pytest.raises(RuntimeError, match="a bug"):
        command("solve", "affine")
