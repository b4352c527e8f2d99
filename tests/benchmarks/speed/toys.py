"""A small family of cone programs and solvers of it, honest and not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import store
from benchmarks.speed import instances, measure
from benchmarks.speed.solver import Answer, Job, Ours, Solver
from maps.scs import ConeProgram

FAMILY = "lasso"
OURS = {"form": "quadratic", "accelerator": "picard", "settings": {"adaptive_scale": False, "scale": 1.0}}


def box(count: int) -> ConeProgram:
    """Minimize |x|^2 / 2 + c'x over -1 <= x <= 1; c and b vary, A and P are shared."""
    rng = np.random.default_rng(0)
    A = np.vstack([np.eye(3), -np.eye(3)])
    b = 1 + 0.1 * rng.random((count, 6))
    return ConeProgram(torch.from_numpy(A), torch.from_numpy(b), rng.standard_normal((count, 3)), np.eye(3), {"l": 6})


class Liar(Solver):
    """Returns 0 and says that it is the solution."""

    name, variant, form = "liar", "default", "quadratic"

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def prepare(self, programs: Sequence[ConeProgram], eps: float) -> Job:
        return _Lie(programs)


class _Lie(Job):
    threads = 1

    def __init__(self, programs: Sequence[ConeProgram]) -> None:
        self.size, self.first = sum(program.batch or 1 for program in programs), programs[0]

    def run(self) -> None:
        pass

    def answer(self) -> Answer:
        x, y = torch.zeros(self.size, self.first.n).double(), torch.zeros(self.size, self.first.m).double()
        ones = torch.ones(self.size, dtype=torch.int64)
        return Answer(x, y, y, ones, ones > 0)


class Recorded:
    """Stands in for `measure.solvers` and counts what was prepared."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.prepared: list[float] = []

    def __call__(self, family: str) -> tuple[list[Solver], dict[str, Any]]:
        recorded = self

        class Counted(Ours):
            def prepare(self, programs: Sequence[ConeProgram], eps: float) -> Job:
                recorded.prepared.append(eps)
                return super().prepare(programs, eps)

        row = {**OURS, "settings": {**OURS["settings"], **self.settings}}
        return [Counted("picard", row), Liar()], {"ours": {"picard": row}}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The toy family in place of the first one, with `Recorded` solvers."""

    def program(family: str, form: str, count: int, split: str = "test") -> ConeProgram:
        return box(count)

    recorded = Recorded()
    for name in ("program", "draw"):
        monkeypatch.setattr(instances, name, program)
    monkeypatch.setattr(measure, "solvers", recorded)
    monkeypatch.setattr(store, "source", lambda: "the same")  # whoever edits the code while the tests run
    monkeypatch.setattr(measure, "LEAST", {1: 2, 16: 16})
    return recorded
