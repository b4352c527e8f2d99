"""Infeasible and unbounded programs: certificates are found, normalised, and hold in the original data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import fixedpoint as fp
from maps.scs import ConeProgram, ConicPoint, solve
from maps.scs.certify.certificates import infeasible, unbounded
from maps.scs.iteration.residuals import certificate_scale

PRIMAL: dict[str, tuple[Any, ...]] = {
    "LP": ([[1.0], [-1.0]], [-1.0, -1.0], [1.0], None, {"l": 2}),
    "contradicting equations": ([[1.0, 1.0], [1.0, 1.0]], [1.0, 2.0], [0.0, 0.0], None, {"z": 2}),
    "SOCP": ([[0.0], [-1.0], [1.0]], [1.0, -3.0, 5.0], [1.0], None, {"q": [3]}),
    "QP": ([[1.0], [-1.0]], [-1.0, -1.0], [1.0], [[2.0]], {"l": 2}),
    "SDP": ([[1.0], [0.0], [-1.0]], [-1.0, 0.0, 0.5], [0.0], None, {"s": [2]}),
    "exponential": ([[0.0], [0.0], [0.0]], [1.0, 1.0, 1.0], [0.0], None, {"ep": 1}),
    "box": ([[0.0], [1.0], [-1.0]], [1.0, -5.0, 0.0], [0.0], None, {"bu": [1.0, 1.0], "bl": [-1.0, -1.0]}),
}
DUAL: dict[str, tuple[Any, ...]] = {
    "LP": ([[1.0]], [1.0], [1.0], None, {"l": 1}),
    "no rows": (np.zeros((0, 2)), np.zeros(0), [1.0, -2.0], None, {}),
    "a direction that P does not see": ([[-1.0, 0.0]], [0.0], [0.0, -1.0], [[1.0, 0.0], [0.0, 0.0]], {"l": 1}),
    "SOCP": ([[-1.0, 0.0], [0.0, -1.0]], [0.0, 0.0], [-1.0, -0.5], None, {"q": [2]}),
    "SDP": ([[-1.0, 0.0], [0.0, 0.0], [0.0, -1.0]], [0.0, 0.0, 0.0], [-1.0, 0.0], None, {"s": [2]}),
}


@pytest.mark.parametrize("accelerator", [None, "safeguarded"])
@pytest.mark.parametrize("name", PRIMAL)
def test_infeasible(name: str, accelerator: str | None) -> None:
    A, b, c, P, cones = PRIMAL[name]
    program = ConeProgram(A, b, c, P, cones)
    found = solve(program, accelerator, check_interval=5)
    assert found.statuses == [fp.Status.PRIMAL_INFEASIBLE]
    assert np.asarray(b) @ found.y == pytest.approx(-1.0, rel=1e-12)
    assert np.abs(np.asarray(A).T @ found.y).max() <= 2e-7
    inside = program.cone.project_dual(torch.as_tensor(found.y)[None])[0].numpy()
    assert np.abs(inside - found.y).max() <= 1e-9 * (1 + np.abs(found.y).max())
    assert np.isnan(found.x).all()
    assert np.isnan(found.s).all()
    assert found.objective == np.inf
    assert np.isnan(found.gap)


@pytest.mark.parametrize("accelerator", [None, "safeguarded"])
@pytest.mark.parametrize("name", DUAL)
def test_unbounded(name: str, accelerator: str | None) -> None:
    A, b, c, P, cones = DUAL[name]
    program = ConeProgram(A, b, c, P, cones)
    found = solve(program, accelerator, check_interval=5)
    assert found.statuses == [fp.Status.DUAL_INFEASIBLE]
    assert np.asarray(c) @ found.x == pytest.approx(-1.0, rel=1e-12)
    assert np.abs(np.asarray(A) @ found.x + found.s).max(initial=0.0) <= 2e-7
    assert P is None or np.abs(np.asarray(P) @ found.x).max() <= 2e-7
    inside = program.cone.project(torch.as_tensor(found.s)[None])[0].numpy()
    assert np.abs(inside - found.s).max(initial=0.0) <= 1e-9
    assert np.isnan(found.y).all()
    assert found.objective == -np.inf


def test_the_wheel_gives_the_same_certificate() -> None:
    import scs

    A, b, c, _, cones = PRIMAL["SOCP"]
    data = {"A": sparse.csc_matrix(np.asarray(A)), "b": np.asarray(b), "c": np.asarray(c)}
    plain = {"acceleration_lookback": 0, "adaptive_scale": False, "verbose": False}
    theirs = scs.SCS(data, cones, **plain).solve()
    ours = solve(ConeProgram(**data, cones=cones), None, check_interval=25)
    assert theirs["info"]["status"] == "infeasible"
    assert theirs["info"]["iter"] == ours.evaluations
    assert np.abs(theirs["y"] - ours.y).max() < 1e-9


def test_statuses_of_a_batch_are_its_instances_own() -> None:
    A = np.array([[1.0], [-1.0]])
    b = np.array([[1.0, 1.0], [-1.0, -1.0], [np.inf, 1.0], [1.0, 1.0]])
    batch = ConeProgram(A, b, np.array([1.0]), cones={"l": 2})
    found = solve(batch, on_invalid="mark")
    assert [status.name for status in found.statuses] == ["CONVERGED", "PRIMAL_INFEASIBLE", "INVALID", "CONVERGED"]
    assert np.isfinite(found.x[[0, 3]]).all()
    assert np.isnan(found.x[[1, 2]]).all()


@pytest.mark.parametrize(("case", "status"), [(PRIMAL["LP"], "PRIMAL_INFEASIBLE"), (DUAL["LP"], "DUAL_INFEASIBLE")])
def test_float32_certifies_with_the_defaults(case: tuple[Any, ...], status: str) -> None:
    A, b, c, _, cones = case
    parts = (torch.tensor(part, dtype=torch.float32) for part in (A, b, c))
    assert solve(ConeProgram(*parts, cones=cones)).statuses[0].name == status


def test_a_certificate_needs_its_tolerance() -> None:
    A, b, c, P, cones = PRIMAL["LP"]
    program = ConeProgram(A, b, c, P, cones)
    (never,) = solve(program, None, eps_infeas=0.0, max_evaluations=300).statuses
    assert never in (fp.Status.MAX_EVALUATIONS, fp.Status.STALLED)
    loose, tight = (solve(program, None, eps_infeas=eps).evaluations for eps in (1e-2, 1e-9))
    assert loose < tight


def test_claims_that_the_data_do_not_bear_out_are_refused() -> None:
    A, b, c, P, cones = PRIMAL["LP"]
    program = ConeProgram(A, b, c, P, cones)

    def point(x: float, y: list[float], s: list[float]) -> ConicPoint:
        return ConicPoint(*(torch.tensor([part], dtype=torch.float64) for part in ([x], y, s)))

    assert infeasible(program, point(0.0, [2.0, 2.0], [0.0, 0.0]), 1e-7).holds.all()
    assert infeasible(program, point(0.0, [2.0, 2.0], [0.0, 0.0]), 1e-7).point.y.tolist() == [[0.5, 0.5]]
    assert not infeasible(program, point(0.0, [2.0, 2.1], [0.0, 0.0]), 1e-7).holds.any(), "A'y is not 0"
    assert not infeasible(program, point(0.0, [-2.0, -2.0], [0.0, 0.0]), 1e-7).holds.any(), "b'y > 0"
    outside = ConeProgram([[1.0], [1.0]], [-1.0, 0.0], [0.0], cones={"l": 2})
    assert not infeasible(outside, point(0.0, [1.0, -1.0], [0.0, 0.0]), 1e-7).holds.any(), "y is not in K*"
    free = ConeProgram([[1.0]], [1.0], [1.0], cones={"l": 1})
    assert unbounded(free, point(-3.0, [0.0], [3.0]), 1e-7).holds.all()
    assert not unbounded(free, point(-3.0, [0.0], [2.0]), 1e-7).holds.any(), "Ax + s is not 0"
    assert not unbounded(free, point(3.0, [0.0], [-3.0]), 1e-7).holds.any(), "c'x > 0"
    assert not unbounded(
        ConeProgram([[-1.0]], [1.0], [1.0], cones={"l": 1}), point(-3.0, [0.0], [-3.0]), 1e-7
    ).holds.any()
    curved = ConeProgram([[1.0]], [1.0], [1.0], [[1.0]], cones={"l": 1})
    assert not unbounded(curved, point(-3.0, [0.0], [3.0]), 1e-7).holds.any(), "Px is not 0"


def test_the_weights_of_violations() -> None:
    b, c = torch.tensor([[3.0, -6.0]]), torch.tensor([[0.5]])
    program = ConeProgram(torch.tensor([[2.0], [-1.0]]), b[0], c[0], cones={"l": 2})
    weights = certificate_scale(program.A, program.patterns["A"], b, c)
    assert weights.infeasible.tolist() == [3.0]
    assert weights.unbounded.tolist() == [1.0]
    empty = ConeProgram(torch.zeros(2, 1), b[0], c[0], cones={"l": 2})
    assert certificate_scale(empty.A, empty.patterns["A"], b, c).infeasible.tolist() == [1.0]


def test_a_claim_of_convergence_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that lies about its residual is not believed."""
    from maps.scs.iteration import residuals

    honest = residuals.kkt_residual
    monkeypatch.setattr(residuals, "kkt_residual", lambda point, weights: 1e-6 * honest(point, weights))
    program = ConeProgram(np.array([[1.0], [-1.0]]), np.array([1.0, 1.0]), np.array([1.0]), cones={"l": 2})
    assert solve(program, None).statuses == [fp.Status.STALLED]
