"""How often a solve reads values, which on another device waits for all that was asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fixedpoint as fp
from fixedpoint.experiments.evaluation import generator
from maps.scs import ConeProgram, solve

READS = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reads, as they are made."""
    seen: list[str] = []

    def noting(owner: Any, name: str) -> None:
        read = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **options: (seen.append(name), read(*given, **options))[1])

    for name in READS:
        noting(torch.Tensor, name)
    noting(torch, "nonzero")
    return seen


def each(reads: list[str], run: Callable[[int], Any]) -> float:
    """Reads for an evaluation, beside those of a solve."""
    counts = []
    for budget in (20, 120):
        reads.clear()
        run(budget)
        counts.append(len(reads))
    return (counts[1] - counts[0]) / 100


@pytest.mark.parametrize(("accelerator", "most"), [("picard", 0.15), ("anderson-2", 2.2), ("safeguarded", 7.2)])
def test_between_checks_the_loop_reads_nothing(reads: list[str], accelerator: str, most: float) -> None:
    rng = np.random.default_rng(0)
    A, b, c = rng.standard_normal((4, 12, 5)), 1 + rng.random((4, 12)), rng.standard_normal((4, 5))
    program = ConeProgram(A, b, c, np.broadcast_to(np.eye(5), (4, 5, 5)).copy(), {"l": 12})
    options: dict[str, Any] = {"eps_abs": 0, "eps_rel": 0, "check_interval": 25}
    assert each(reads, lambda budget: solve(program, accelerator, max_evaluations=budget, **options)) <= most


def test_a_check_reads_once(reads: list[str]) -> None:
    family = fp.families.create("elastic-net")
    problem = family.sample(4, generator=generator(0, "test"))
    found = each(reads, lambda budget: fp.solve(family.map, problem, None, tolerance=0, max_evaluations=budget))
    assert found <= 1.05
