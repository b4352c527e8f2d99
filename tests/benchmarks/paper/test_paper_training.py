"""What the paper's experiments train: once, in stages, from their own recipes only, with the curve kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.paper import measure, report, rows, store
from benchmarks.paper.learning import training
from benchmarks.paper.learning.recipes import RECIPES, Recipe
from benchmarks.paper.problems import PROBLEMS
from benchmarks.paper.rows import Row
from fixedpoint.learning.training import Plan, train
from tests.benchmarks.paper.papers import CLASSICAL, NET, everything, quick

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_row_has_a_recipe_that_can_be_trained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    recipes = RECIPES[name]
    needed = [one.accelerator for one in rows.planned(PROBLEMS[name]) if rows.trained(one)]
    assert set(needed) <= set(recipes)
    for one in recipes.values():
        Plan(**one.plan)
        assert one.start is None or (recipes[one.start].accelerator, one.options) == (one.accelerator, {})


def test_a_training_curve_is_thinned_to_means() -> None:
    points = [(float(k + 1), float(k), 5.0) for k in range(2 * training.POINTS)]
    thin = training.thinned(points)
    assert len(thin) == training.POINTS
    assert thin[0] == [1.5, 0.5, 5.0]
    assert training.thinned([]) == []


TINY = {"updates": 2, "instances": 8, "batch": 4, "horizon": 2, "validation": 2, "evaluations": 2, "keep": "last"}


def trainable(monkeypatch: pytest.MonkeyPatch, folder: Path, recipes: dict[str, Recipe]) -> None:
    monkeypatch.setattr(rows, "planned", lambda problem: [*CLASSICAL, Row("GRU", "neural", "gru")])
    monkeypatch.setattr(training, "RECIPES", {"elastic-net": recipes})
    monkeypatch.setattr(training, "RUNS", folder / "runs")
    monkeypatch.setattr(training, "SHIPPED", folder / "shipped")


def test_what_is_missing_is_trained_once_with_its_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Recipe("gru", options={"hidden": 4}, plan=TINY)
    trainable(monkeypatch, tmp_path, {"gru, first": first, "gru": Recipe("gru", "gru, first", plan=TINY, ships=True)})
    said: list[str] = []
    found = training.weights(NET, tmp_path, said.append)
    assert found == {"gru": tmp_path / "shipped" / "elastic-net" / "gru.safetensors"}
    assert len(said) == 2
    stages = store.read(tmp_path / store.TRAINING)
    assert [record["row"] for record in stages] == ["gru, first", "gru"]
    assert stages[1]["from"] == stages[0]["weights"]
    training.note(NET, "gru", first, tmp_path / "nowhere", tmp_path / store.TRAINING)
    assert store.read(tmp_path / store.TRAINING) == stages
    assert [update for update, _, _ in stages[1]["loss"]] == [1, 2]
    for again in (True, False):
        if not again:
            found["gru"].unlink()  # the run's folder still has it
        assert training.weights(NET, tmp_path, said.append) == found
        assert len(said) == 2
        assert store.read(tmp_path / store.TRAINING) == stages
    measure.run(NET, found, tmp_path, 4, said.append)
    measured = report.of(store.whole(everything(tmp_path)), "row")
    assert report.curves(measured, stages) == [stages]
    assert (
        measured[-1]["training"]["stages"]
        == [{k: Plan(**TINY).to_json()[k] for k in measured[-1]["training"]["stages"][0]}] * 2
    )


@pytest.mark.parametrize("change", [{"options": {"hidden": 5}}, {"plan": {**TINY, "loss": "residual"}}])
def test_weights_of_another_recipe_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    recipe = Recipe("gru", options={"hidden": 4}, plan=TINY)
    trainable(monkeypatch, tmp_path, {"gru": recipe})
    training.weights(NET, tmp_path, print)
    trainable(monkeypatch, tmp_path, {"gru": replace(recipe, **change)})
    with pytest.raises(ValueError, match="belongs to another run"):
        training.weights(NET, tmp_path, print)


def test_other_weights_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for seed in (0, 1):
        trainable(
            monkeypatch, tmp_path / str(seed), {"gru": Recipe("gru", options={"hidden": 4, "seed": seed}, plan=TINY)}
        )
        measure.run(NET, training.weights(NET, tmp_path, print), tmp_path, 4, print)
        runs.append({record["run"] for record in store.whole(everything(tmp_path))})
    assert len(runs[0]) == len(runs[1]) == 1
    assert runs[0] != runs[1]


def test_a_still_training_leaves_tau_to_the_map() -> None:
    problem = PROBLEMS["lasso"]
    for still in (False, True):
        made = training.begun(problem, Recipe("lstm", options={"hidden": 4, "context": False}, still=still), None)
        trained = train("lasso", made, family_options=problem.options(), **TINY)
        touched = bool(trained.inner.decoder.weight[-1].abs().max() > 0)
        assert touched == (not still)
        assert bool(trained.inner.decoder.weight[:-1].abs().max() > 0)


def test_a_loose_training_keeps_the_length_of_v(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(training.training, "train", lambda family, *given, **options: seen.append(family))
    problem = PROBLEMS["lasso"]
    for loose in (False, True):
        recipe = Recipe("lstm", options={"hidden": 4, "context": False}, plan=TINY, loose=loose)
        training._train(problem, recipe, None, tmp_path, print)
    v = torch.full((1, problem.bound().map.signature.size), 2.0)
    assert seen[0] == "lasso"
    assert torch.equal(seen[1].map.retract(v, None), v)
    assert not torch.equal(problem.bound().map.retract(v, None), v)  # type: ignore[arg-type]
