"""Train what has no weights yet; every stage in a folder of its own, from which an interrupted one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accelerators.neural.recurrent import Recurrent
from accelerators.safeguard import Safeguarded
from benchmarks.paper import rows, store
from benchmarks.paper.learning.recipes import RECIPES, Recipe
from benchmarks.paper.problems import PaperProblem
from benchmarks.store import ROOT
from fixedpoint import Accelerator, files
from fixedpoint.experiments.comparison.compare import LOCAL_TRAINING
from fixedpoint.experiments.evaluation import Record
from fixedpoint.learning import training
from fixedpoint.learning.run_folder import LOG, PLAN, TRAINED
from fixedpoint.learning.training import Plan
from fixedpoint.plugins import checkpoint, composition

SHIPPED = ROOT / "accelerators" / "pretrained"
RUNS = ROOT / LOCAL_TRAINING / "paper"
POINTS = 150
"""Of a training curve, at most: means over equally many updates."""
SAY_EVERY = 50


def weights(problem: PaperProblem, folder: Path, say: Callable[[str], None] = print) -> dict[str, Path]:
    """The file of every training that a row of the problem needs: shipped, finished before, or trained now.

    Args:
        problem: which.
        folder: where its records are; training curves are added to `training.jsonl` there.
        say: told every `SAY_EVERY` updates.
    """
    recipes = RECIPES[problem.name]
    return {
        row.accelerator: _weights(problem, recipes, row.accelerator, folder, say)
        for row in rows.planned(problem)
        if rows.trained(row)
    }


def _weights(
    problem: PaperProblem, recipes: dict[str, Recipe], name: str, folder: Path, say: Callable[[str], None]
) -> Path:
    recipe, run = recipes[name], run_of(problem, name)
    shipped = SHIPPED / problem.where / f"{recipe.accelerator}.safetensors"
    found = shipped if recipe.ships else run / TRAINED
    if not (recipe.ships and shipped.is_file()):
        if not finished(run, recipe):
            start = None if recipe.start is None else _weights(problem, recipes, recipe.start, folder, say)
            _train(problem, recipe, start, run, say)
        if recipe.ships:
            with files.replacing(shipped) as temporary:
                shutil.copyfile(run / TRAINED, temporary)
    stage: str | None = name
    while stage is not None:
        note(problem, stage, recipes[stage], run_of(problem, stage), folder / store.TRAINING)
        stage = recipes[stage].start
    return found


def run_of(problem: PaperProblem, name: str) -> Path:
    """The folder of a training's run."""
    return RUNS / problem.name / name.replace(", ", ".").replace(" ", "-")


def finished(run: Path, recipe: Recipe) -> bool:
    """Whether the folder holds the result of this very recipe; that of another one the training refuses."""
    if not (run / TRAINED).is_file():
        return False
    told = json.loads((run / PLAN).read_text())
    options = told["options"]["inner"]["options"]  # of what the safeguard holds
    asked = json.loads(json.dumps(Plan(**recipe.plan).to_json()))
    return bool(told["plan"] == asked) and all(options[name] == value for name, value in recipe.options.items())


def _train(problem: PaperProblem, recipe: Recipe, start: Path | None, run: Path, say: Callable[[str], None]) -> None:
    def report(now: training.Report) -> None:
        if now.update % SAY_EVERY == 0 or now.update == now.updates:
            say(f"{problem.name}: {run.name} {now.update}/{now.updates}, loss {now.loss:.3f}")

    loose = problem.bound()
    loose.map.retract = lambda x, context: x  # type: ignore[method-assign]
    training.train(
        loose if recipe.loose else problem.family,
        begun(problem, recipe, start),
        family_options=None if recipe.loose else problem.options(),
        out=run,
        report=report,
        **recipe.plan,
    )


def begun(problem: PaperProblem, recipe: Recipe, start: Path | None) -> Accelerator:
    """What a stage begins with: untrained, or the weights at `start`; the corrections of a `still` one spare tau."""
    if start is None:
        made = composition.compose(recipe.accelerator, {recipe.accelerator: recipe.options})
        made = made.bind(problem.bound().map.signature)
    else:
        made = checkpoint.load(start)
    if recipe.still:
        assert isinstance(made, Safeguarded)
        assert isinstance(made.inner, Recurrent)
        tau = made.inner.spread.shape[0] - 1
        # both layers begin at 0, so that what they say of tau stays 0
        for layer in (made.inner.decoder, made.inner.start_network.body[-1]):
            assert isinstance(layer, nn.Linear)
            for parameter in (layer.weight, layer.bias):
                parameter.register_hook(partial(_without, tau))
    return made


def _without(row: int, gradient: Tensor) -> Tensor:
    """The gradient with 0 in one row."""
    kept = torch.arange(gradient.shape[0]) != row
    return gradient * kept.to(gradient.dtype).reshape(-1, *[1] * (gradient.ndim - 1))


def note(problem: PaperProblem, name: str, recipe: Recipe, run: Path, path: Path) -> None:
    """Add the training curve of a finished run to the records at `path`, unless it is there or there is no run."""
    if not (run / TRAINED).is_file():
        return
    made = checkpoint.load(run / TRAINED)
    digest = checkpoint.digest(made)
    if any(record["weights"] == digest for record in store.read(path)):
        return
    assert made.provenance is not None
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    before = made.provenance.get("before")
    plan = json.loads((run / PLAN).read_text())
    record: Record = {
        "part": "training",
        "problem": problem.name,
        "row": name,
        "start": recipe.start,
        "from": plan.get("from"),
        "weights": digest,
        "plan": made.provenance["plan"],
        "minutes": made.provenance["minutes"] - (before or {}).get("minutes", 0.0),
        "versions": made.provenance["versions"],
        "revision": made.provenance["revision"],
        "loss": thinned([(line["update"], line["loss"], line["horizon"]) for line in lines if "loss" in line]),
        "validation": [(line["update"], line["score"]) for line in lines if "score" in line],
    }
    store.append(path, [record])


def thinned(points: list[tuple[Any, ...]]) -> list[list[float]]:
    """(update, loss, horizon) averaged over groups of equally many updates, at most `POINTS` of them."""
    if not points:
        return []
    size = -(-len(points) // POINTS)
    groups = [np.mean(points[k : k + size], axis=0) for k in range(0, len(points), size)]
    return [[float(f"{value:.5g}") for value in group] for group in groups]
