"""The time limit through every conic door."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch

import fixedpoint as fp
from fixedpoint.solve import stopping
from maps.scs import ConeProgram, solve
from maps.scs.cvxpy import CvxpyFamily, FixedPointSolver

ENDLESS = {"eps_abs": 1e-14, "eps_rel": 0.0, "max_evaluations": 10**6}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock takes a second."""
    monkeypatch.setattr(stopping.time, "monotonic", map(float, itertools.count()).__next__)


def program() -> ConeProgram:
    rng = np.random.default_rng(0)
    A, b, c = rng.standard_normal((12, 4)), 1 + rng.random((2, 12)), rng.standard_normal(4)
    return ConeProgram(A, b, c, np.eye(4), {"l": 12})


@pytest.mark.parametrize("options", [{}, {"precision": "mixed"}, {"chunk": 1}])
def test_the_conic_door(options: dict[str, object]) -> None:
    found = solve(program(), None, time_limit=30, **ENDLESS, **options)
    assert found.statuses == [fp.Status.TIME_LIMIT] * 2
    assert (found.evaluations <= 31).all()


def test_a_program_that_is_solved_in_time_is_converged() -> None:
    assert solve(program(), time_limit=1000).converged.all()


def test_inside_cvxpy() -> None:
    x = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - np.arange(3.0)) + cp.norm1(x)), [cp.sum(x) == 1])
    with pytest.warns(UserWarning, match="Solution may be inaccurate"):
        problem.solve(solver=FixedPointSolver(time_limit=25, **ENDLESS))
    assert problem.status == "optimal_inaccurate"
    assert problem.solver_stats.extra_stats["info"]["status"] == "TIME_LIMIT"


def test_in_a_family() -> None:
    b, x = cp.Parameter(3), cp.Variable(3)
    family = CvxpyFamily(cp.Problem(cp.Minimize(cp.sum_squares(x - b) + cp.norm1(x)), [cp.sum(x) == 1]), [b])
    found = family.solve([torch.arange(6.0, dtype=torch.float64).reshape(2, 3)], time_limit=25, **ENDLESS)
    assert found.statuses == [fp.Status.TIME_LIMIT] * 2
