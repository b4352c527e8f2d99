"""The searches for settings: repeatable, judged by the referee, kept with where they came from."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from benchmarks.speed import __main__ as command
from benchmarks.speed import instances, layer, measure
from benchmarks.speed.solver import Job, Ours
from benchmarks.speed.tuning import own, scs_package
from maps.scs import ConeProgram
from tests.benchmarks.speed.toys import OURS, Liar, box, toy

__all__ = ["toy"]

TASK = own.TASKS["lasso"][0]._replace(count=6)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations in the place of seconds: what is fastest then depends on nothing but the settings."""

    def seconds(job: Job) -> float:
        job.run()
        return float(job.answer().evaluations.sum())

    monkeypatch.setattr(scs_package, "processor_seconds", seconds)


def search(path: Path, trials: int = 4, name: str = "lasso", task: own.Task = TASK) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return own.search(name, task, trials, path, said.append), said


def score(line: str) -> str:
    """Of the trial that a line tells of."""
    return line.split(": ")[1].split()[0]


@pytest.mark.usefixtures("toy", "counted")
def test_a_search_is_repeatable_and_keeps_the_best(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    row, said = search(path)
    other, again = search(tmp_path / "other.json")
    assert said == again
    assert row["settings"] == other["settings"]
    assert row["score"] == pytest.approx(min(float(score(line)) for line in said), abs=1e-3)
    assert len({score(line) for line in said}) > 1, "trials differ"
    whole = instances.program("lasso", "quadratic", 6)
    assert row["score"] == own.objective(row, TASK.targets, whole, math.inf)
    searched = {"eliminate", "normalize", "scale", "alpha", "tau_factor", "first_check", "check_interval"}
    assert set(row["settings"]) == {*searched, *TASK.given, "workers"}
    told = row["provenance"]
    assert (told["command"], told["trials"]) == ("python -m benchmarks.speed tune --ours lasso", 4)
    assert (told["instances"], told["split"], told["seed"]) == (6, "train", 0)


@pytest.mark.usefixtures("toy", "counted")
def test_a_row_is_what_the_benchmark_reads_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    before = json.loads(own.PATH.read_text())
    path.write_text(own.text_of(before))
    row, _ = search(path)
    after = json.loads(path.read_text())
    assert after["lasso"].pop("picard") == row
    before["lasso"].pop("picard")
    assert after == before
    job = Ours("picard", row).prepare([box(6)], 1e-4)
    job.run()
    assert bool((measure.referee([box(6)], job) <= 1e-4).all())


def test_the_settings_file_is_as_the_search_writes_it() -> None:
    text = own.PATH.read_text()
    settings = json.loads(text)
    assert own.text_of(settings) == text
    for name, tasks in own.TASKS.items():
        for task in tasks:
            row = settings[name][task.row]
            assert (row["form"], row["accelerator"]) == (task.form, task.accelerator)
            searched = own.space_of(name, task).keys()
            assert {*row["options"]} <= searched
            assert {*row["settings"]} <= {*searched, *task.given, "workers"}


@pytest.mark.usefixtures("toy", "counted")
def test_arguments_of_an_accelerator_are_searched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tuple(task._replace(count=6) for task in own.TASKS["lasso"])
    monkeypatch.setitem(own.TASKS, "lasso", tasks)
    path = tmp_path / "settings.json"
    own.run("lasso", 6, path, lambda _: None)
    found = json.loads(path.read_text())["lasso"]
    assert list(found) == [task.row for task in tasks]
    assert found["picard"]["options"] == {}
    assert found["anderson-2"]["options"].keys() == {"memory", "start"}
    assert found["anderson-2"]["settings"].keys() >= {"rho_x", "zero_cone_factor", "check_interval"}
    assert "eliminate" not in found["anderson-2"]["settings"]


@pytest.mark.usefixtures("toy", "counted")
def test_a_search_that_finds_nothing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scs_package, "MOST", 1)
    path = tmp_path / "settings.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="none of 3 settings solves all 6 training instances"):
        search(path, trials=3)
    assert path.read_text() == "{}"


@pytest.mark.usefixtures("counted")
def test_the_referee_and_the_map_have_a_say() -> None:
    assert scs_package.milliseconds(Liar(), [box(4)], {1e-3: 1.0}) == math.inf
    refused = {**OURS, "options": {}, "settings": {"scale": -1.0}}
    assert own.objective(refused, {1e-3: 1.0}, box(4), math.inf) == math.inf
    good = Ours("trial", OURS)
    loose, both = (
        scs_package.milliseconds(good, [box(4)], targets) for targets in ({1e-3: 1.0}, {1e-3: 1.0, 1e-6: 0.1})
    )
    precise = scs_package.milliseconds(good, [box(4)], {1e-6: 1.0})
    assert both == pytest.approx(loose + 0.1 * precise)
    assert precise > loose > 0


@pytest.mark.usefixtures("counted")
def test_the_layer_is_searched_on_instances_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[Tensor]] = []

    def draw(*given: Any, **options: Any) -> list[Tensor]:
        drawn.append(real(*given, **options))
        return drawn[-1]

    real = layer.draw
    monkeypatch.setattr(layer, "draw", draw)
    row, _ = search(tmp_path / "settings.json", 3, own.LAYER, own.TASKS[own.LAYER][0]._replace(count=6))
    assert "workers" not in row["settings"]
    for searched, measured in zip(drawn[0], real(6, *layer.SIZE), strict=True):
        assert searched.shape == measured.shape
        assert not bool((searched == measured).any()), "those that are timed"


def test_families_are_searched_on_training_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def program(*given: Any) -> ConeProgram:
        seen.append(given)
        return box(2)

    monkeypatch.setattr(instances, "program", program)
    own.program("robust-kalman", TASK)
    assert seen == [("robust-kalman", "quadratic", 6, "train")]


@pytest.mark.parametrize("family", measure.FAMILIES)
def test_scs_begins_with_what_ours_have(family: str) -> None:
    known = scs_package.SPACE.keys() | {"form", "reuse"}
    for guess in scs_package.guesses(family):
        assert known >= guess.keys()
        assert isinstance(guess["normalize"], bool)
    assert len(scs_package.guesses(family)) == len(json.loads(own.PATH.read_text())[family])


def test_the_command_searches_what_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(own, "run", lambda *given: seen.append(("ours", *given)))
    monkeypatch.setattr(scs_package, "tune", lambda *given: seen.append(("scs", *given)))

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["engine", "tune", *arguments])
        command.main()

    run("--ours", "layer", "--trials", "7")
    run("lasso")
    run("--ours")
    assert seen[:2] == [("ours", "layer", 7), ("scs", "lasso", scs_package.TRIALS)]
    assert [name for _, name, _ in seen[2:]] == list(own.TASKS)
    with pytest.raises(SystemExit):
        run("layer")
    assert "expected lasso, robust-kalman, robust-pca, got layer" in capsys.readouterr().err
