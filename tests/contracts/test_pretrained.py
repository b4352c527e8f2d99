"""Every accelerator that the project ships with weights: it loads, fits its family, keeps the laws, and is small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import accelerators
import fixedpoint as fp
from fixedpoint.checks import check_accelerator
from fixedpoint.experiments.comparison.compare import configure, trained_files
from fixedpoint.experiments.evaluation import generator
from fixedpoint.plugins import checkpoint

FOLDER = Path(accelerators.__file__).parent / "pretrained"
SHIPPED = sorted(FOLDER.rglob("*.safetensors"))
NAMES = [f"{path.parent.name}/{path.stem}" for path in SHIPPED]
LEARNING = ("lasso", "diabetes-lasso", "elastic-net", "pagerank", "value-iteration")
MEGABYTE = 2**20


def test_all_weights_together_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED) < 20 * MEGABYTE


@pytest.mark.parametrize("family", LEARNING)
def test_a_family_that_learns_ships_a_gru_an_lstm_and_a_warm_start(family: str) -> None:
    names = {
        part
        for where in (family, f"{family}.paper")
        for path in SHIPPED
        if path.parent.name == where
        for part in path.stem.split("+")
    }
    assert {"gru", "lstm", "warm-start"} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_shipped_weights_keep_the_laws(path: Path) -> None:
    check_accelerator(checkpoint.load(path))


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_shipped_weights_are_found_and_solve_held_out_instances(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # no local trainings
    family, _, setting = path.parent.name.partition(".")
    assert trained_files(family, setting or None)[path.stem] == path
    made = configure(family, path.stem, None, setting or None)
    problem = made.family.sample(8, generator=generator(9, "test"))
    solution = fp.solve(made.family.map, problem, made.accelerator, tolerance=1e-2, max_evaluations=500)
    assert bool(solution.converged.all())
    assert bool(torch.isfinite(solution.x).all())
    assert made.training is not None
    assert made.training["minutes"] <= 30
