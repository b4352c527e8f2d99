"""A check computes nothing twice, and what it returns is finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fixedpoint as fp
from maps.scs import SCS, ConeProgram, SparseMatrix, solve
from maps.scs.iteration import equilibration, residuals
from maps.scs.iteration.equilibration import Data
from tests.maps.scs.programs import data


def test_the_norms_of_a_check_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, cones = data("QP", 0)
    calls: list[int] = []
    norms = residuals.kkt_norms

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return norms(*arguments)

    monkeypatch.setattr(residuals, "kkt_norms", counted)
    options: Any = {"eps_abs": 0, "eps_rel": 0, "max_evaluations": 40, "check_interval": 4}
    solve(ConeProgram(**found, cones=cones), None, adaptive_scale=True, **options)
    assert len(calls) == 10 + 1, "one for each check, and one for iteration 0"


@pytest.mark.parametrize("eliminate", [False, True])
def test_where_tau_vanishes_the_numbers_are_finite_and_of_size_one(eliminate: bool) -> None:
    """A program without a feasible point, cut off before its certificate is exact."""
    A = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    program = ConeProgram(A, np.array([-1.0, -1.0, 1.0]), np.array([1.0, 1.0]), np.eye(2), {"l": 3})
    options: Any = {"eps_infeas": 0.0, "max_evaluations": 60, "adaptive_scale": False, "eliminate": eliminate}
    found = solve(program, None, **options)
    assert found.statuses[0] in (fp.Status.MAX_EVALUATIONS, fp.Status.STALLED)
    for part in (found.x, found.y, found.s):
        assert np.isfinite(part).all()
        assert np.abs(part).max() < 1e3


@pytest.mark.parametrize("shared", [False, True])
def test_dense_matrices_are_scaled_as_sparse_ones(shared: bool) -> None:
    rng = np.random.default_rng(0)
    A, P = rng.standard_normal((4, 9, 6)), rng.standard_normal((4, 6, 6))
    A[:, rng.random((9, 6)) < 0.4] = 0.0
    P = P @ P.transpose(0, 2, 1)
    if shared:
        A, P = A[0], P[0]
    program = ConeProgram(A, rng.standard_normal((4, 9)), rng.standard_normal((4, 6)), P, {"z": 2, "l": 3, "q": [4]})
    assert isinstance(program.A, torch.Tensor)
    assert isinstance(program.P, torch.Tensor)
    lists = Data(*(SparseMatrix(_values(program, n), program.patterns[n]) for n in "AP"), program.b, program.c)
    dense = Data(program.A, program.P, program.b, program.c)
    for scale in (equilibration.equilibrate, equilibration.shared):
        one, two = (scale(given, program.cone, program.patterns) for given in (dense, lists))
        for mine, theirs in zip(one, two, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-14, atol=0)


def _values(program: ConeProgram, name: str) -> torch.Tensor:
    rows, columns = program.patterns[name].index(program.b.device)
    return getattr(program, name)[..., rows, columns]


def test_no_signs_are_made_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found, cones = data("QP", 0)
    program = ConeProgram(found["A"], found["b"][None], found["c"], found["P"], cones)
    map = SCS.of(program)
    context = map.setup(program)
    v = map.initial(context)
    monkeypatch.setattr(torch.Tensor, "new_full", lambda *_: pytest.fail("made anew"))
    map.evaluate(v, context)
