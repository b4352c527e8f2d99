"""The folder of a run: what it holds, what it refuses, and going on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import fixedpoint as fp
from fixedpoint.learning import trainer
from fixedpoint.learning.run_folder import BEST, LOG, PLAN, STATE, TRAINED
from fixedpoint.learning.training import Report, train
from maps.affine import RandomAffine
from tests.learning.toys import SMALL


class Interrupted(Exception):
    """What stands for a loss of power."""


def run(out: Path | None, *, stop: int | None = None, options: dict[str, Any] | None = None, **plan: Any) -> Any:
    """Train a little network, and stop after an update if told to."""

    def report(now: Report) -> None:
        if now.update == stop:
            raise Interrupted

    method = fp.accelerators.create("gru", **{"hidden": 3, "steps": 2, **(options or {})})
    return train(RandomAffine(3), method, out=out, report=report, **{**SMALL, **plan})


def interrupted(out: Path, stop: int, **plan: Any) -> None:
    with pytest.raises(Interrupted):
        run(out, stop=stop, **plan)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


class Whole(NamedTuple):
    """A run that nothing interrupted."""

    trained: Any
    folder: Path

    def equals(self, trained: Any, folder: Path) -> None:
        for name, t in self.trained.state_dict().items():
            assert torch.equal(t, trained.state_dict()[name]), name
        for key in ("score", "best_update", "updates"):
            assert self.trained.provenance[key] == trained.provenance[key]
        assert lines(self.folder) == lines(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("runs") / "deep" / "whole"
    return Whole(run(folder), folder)


def test_what_a_run_leaves_behind(whole: Whole) -> None:
    trained, folder = whole
    assert files(folder) == {PLAN, LOG, STATE, BEST, TRAINED}
    log = lines(folder)
    updates = [line for line in log if "loss" in line]
    validations = [line for line in log if "score" in line]
    assert [line["update"] for line in updates] == list(range(1, 13))
    assert [line["horizon"] for line in updates] == [3, 4, 4, 4, 5, 6, 6, 6, 6, 6, 6, 6]
    assert [line["update"] for line in validations] == [0, 4, 8, 12]
    assert len(log) == len(updates) + len(validations)
    best = [line for line in validations if line["best"]][-1]
    assert best["score"] == min(line["score"] for line in validations) == trained.provenance["score"]
    assert best["update"] == trained.provenance["best_update"]
    plan = json.loads((folder / PLAN).read_text())
    assert plan["accelerator"] == "gru"
    assert plan["plan"]["horizon"] == 6
    for name in (BEST, TRAINED):
        loaded = fp.load(folder / name)
        assert all(torch.equal(t, trained.state_dict()[key]) for key, t in loaded.state_dict().items())


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 12])
@pytest.mark.parametrize("save_every", [0.0, 1e9], ids=["saved at every update", "saved at validations"])
def test_an_interrupted_run_ends_like_an_unbroken_one(
    stop: int, save_every: float, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixedpoint.learning.trainer.SAVE_EVERY", save_every)
    interrupted(tmp_path, stop)
    whole.equals(run(tmp_path), tmp_path)


@pytest.mark.parametrize(("save_every", "left"), [(0.0, [10, 11, 12]), (1e9, [9, 10, 11, 12])])
def test_a_resumed_run_does_only_what_is_left(
    save_every: float, left: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixedpoint.learning.trainer.SAVE_EVERY", save_every)
    interrupted(tmp_path, 9)  # validated and saved at update 8
    seen: list[Report] = []
    method = fp.accelerators.create("gru", hidden=3, steps=2)
    train(RandomAffine(3), method, out=tmp_path, report=seen.append, **SMALL)
    assert [now.update for now in seen] == left


def test_the_best_weights_outlive_an_interruption(tmp_path: Path) -> None:
    """Steps so long that no later weights are better than the first."""
    plan = {"learning_rate": 3.0, "loss": "log-residual"}
    trained = run(tmp_path / "whole", **plan)
    assert trained.provenance["best_update"] == 0
    interrupted(tmp_path / "parts", 9, **plan)
    Whole(trained, tmp_path / "whole").equals(run(tmp_path / "parts", **plan), tmp_path / "parts")


def test_a_finished_run_is_not_trained_again(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, folder = whole
    monkeypatch.setattr(trainer, "draw", lambda *_: pytest.fail("draws instances again"))
    before = (folder / LOG).read_bytes()
    whole.equals(run(folder, stop=1), folder)
    assert (folder / LOG).read_bytes() == before
    (folder / TRAINED).unlink()  # killed just before the result was written
    run(folder, stop=1)
    loaded = fp.load(folder / TRAINED)
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in trained.state_dict().items())


def test_patience_is_kept_across_an_interruption(tmp_path: Path) -> None:
    """However often it is interrupted, it ends at the update where the unbroken run ended."""
    plan = {"updates": 60, "validate_every": 2, "patience": 3, "learning_rate": 1e-30}
    whole = run(tmp_path / "whole", **plan)
    assert whole.provenance["updates"] < 60
    for stop in (3, 5):
        interrupted(tmp_path / "parts", stop, **plan)
    assert run(tmp_path / "parts", **plan).provenance["updates"] == whole.provenance["updates"]
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


DIFFERENCES: dict[str, dict[str, Any]] = {
    "plan.horizon: 6 there, 7 asked": {"horizon": 7},
    "plan.seed: 0 there, 1 asked": {"seed": 1},
    "plan.window: None there, 3 asked": {"window": 3},
    "options.steps: 2 there, 4 asked": {"options": {"steps": 4}},
    "options.base.accelerator: 'picard' there, 'anderson-2' asked": {"options": {"base": "anderson-2"}},
}


@pytest.mark.parametrize("message", DIFFERENCES)
def test_the_folder_of_another_run_is_refused(message: str, whole: Whole) -> None:
    before = {name: (whole.folder / name).read_bytes() for name in files(whole.folder)}
    with pytest.raises(ValueError, match=f"out: {whole.folder} belongs to another run .*{message}"):
        run(whole.folder, **DIFFERENCES[message])
    assert {name: (whole.folder / name).read_bytes() for name in files(whole.folder)} == before


def test_another_family_is_another_run(tmp_path: Path) -> None:
    options: Any = {"options": {"coordinate-gru": {"hidden": 2, "steps": 2}}, "out": tmp_path, **SMALL}
    train("affine", "coordinate-gru", family_options={"size": 3}, **options)
    with pytest.raises(ValueError, match=r"family\.options\.size: 3 there, 4 asked; signature"):
        train("affine", "coordinate-gru", family_options={"size": 4}, **options)
    with pytest.raises(ValueError, match=r"family\.options\.rate: None there, 0\.5 asked"):
        train("affine", "coordinate-gru", family_options={"size": 3, "rate": 0.5}, **options)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "no header", "other header"])
def test_a_damaged_state_is_refused_with_its_path(damage: str, whole: Whole, tmp_path: Path) -> None:
    interrupted(tmp_path, 5)
    path = tmp_path / STATE
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    if damage in ("no header", "other header"):
        header["__metadata__"] = {} if damage == "no header" else {"progress": '{"updates": 3}'}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + good[8 + length :])
    else:
        path.write_bytes({"truncated": good[:-10], "empty": b"", "text": b"hello, world" * 5}[damage])
    with pytest.raises(ValueError, match=f"out: {path} is damaged .*delete it to start the run anew"):
        run(tmp_path)
    path.unlink()
    whole.equals(run(tmp_path), tmp_path)  # the log, too, begins anew


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "3", "null", b"\xff\xfe"])
def test_a_damaged_plan_is_refused_with_its_path(content: str | bytes, tmp_path: Path) -> None:
    interrupted(tmp_path, 5)
    (tmp_path / PLAN).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"out: {tmp_path / PLAN} is damaged .*choose another folder"):
        run(tmp_path)


def test_a_folder_with_a_run_but_no_plan_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path, 5)
    (tmp_path / PLAN).unlink()
    with pytest.raises(ValueError, match=f"out: {tmp_path} holds a run without its plan.json"):
        run(tmp_path)


def test_an_out_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file"):
        run(tmp_path / "file" / "run")


def test_what_a_kill_leaves_half_written_is_dropped(whole: Whole, tmp_path: Path) -> None:
    interrupted(tmp_path, 6)
    with (tmp_path / LOG).open("a") as log:
        log.write('{"update": 7, "lo')
    (tmp_path / f".{STATE}-left.safetensors").write_bytes(b"half of a sta")
    whole.equals(run(tmp_path), tmp_path)
