"""The conic front door: kinds in and out, warm starts, progress, single instances, P as a triangle, isolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import fixedpoint as fp
from fixedpoint.solve import batch as solve_batches
from fixedpoint.solve import chunks
from maps.scs import (
    SCS,
    ConeProgram,
    ConicPoint,
    FactorizationError,
    SparseMatrix,
    kkt_error,
    linear_systems,
    solve,
)
from tests.maps.scs.programs import CONES, batch, data, program

FAIR: Any = {"eps_abs": 1e-4, "eps_rel": 1e-4, "scale": 1.0}
TIGHT: Any = {"eps_abs": 1e-11, "eps_rel": 1e-11, "scale": 1.0}
GOOD: Any = {"eps_abs": 1e-8, "eps_rel": 1e-8, "scale": 1.0}


def test_numpy_and_scipy_in_numpy_out() -> None:
    found, cones = data("QP", 0)
    solution = solve(ConeProgram(**found, cones=cones))
    parts = {name: getattr(solution, name) for name in vars(solution) if name != "seconds"}
    assert {name for name, part in parts.items() if not isinstance(part, np.ndarray)} == set()
    assert solution.status == fp.Status.CONVERGED
    many = solve(ConeProgram(found["A"], np.stack([found["b"]] * 3), found["c"], found["P"], cones))
    assert many.x.shape == (3, 20)


@pytest.mark.parametrize("name", ["A", "b", "c", "P"])
def test_one_tensor_in_tensors_out(name: str) -> None:
    found, cones = data("QP", 0)
    dense = found[name].toarray() if name in "AP" else found[name]
    solution = solve(ConeProgram(**{**found, name: torch.as_tensor(dense)}, cones=cones))
    parts = {key: getattr(solution, key) for key in vars(solution) if key != "seconds"}
    assert {key for key, part in parts.items() if not isinstance(part, torch.Tensor)} == set()


def test_a_list_of_sparse_matrices_is_a_batch() -> None:
    found, cones = data("QP", 0)
    halves = [found["A"], 0.5 * found["A"]]
    together = solve(ConeProgram(halves, found["b"], found["c"], found["P"], cones), **GOOD)
    for i in range(2):
        alone = solve(ConeProgram(halves[i], found["b"], found["c"], found["P"], cones), **GOOD)
        assert np.abs(together[i].x - alone.x).max() < 1e-6
    other = sparse.csc_matrix(np.ones(found["A"].shape))
    with pytest.raises(
        ValueError, match="A: expected matrices with one sparsity pattern, but that of instance 1 differs"
    ):
        ConeProgram([found["A"], other], found["b"], found["c"], found["P"], cones)


@pytest.mark.parametrize("kind", ["sparse", "dense", "tensor"])
@pytest.mark.parametrize("triangle", ["upper", "lower"])
def test_a_triangle_of_p_is_mirrored(triangle: str, kind: str) -> None:
    found, cones = data("QP", 0)
    full = found["P"]
    P = (sparse.triu if triangle == "upper" else sparse.tril)(full).tocsc()
    given = P if kind == "sparse" else P.toarray() if kind == "dense" else torch.as_tensor(P.toarray())
    half = ConeProgram(found["A"], found["b"], found["c"], given, cones)
    whole = ConeProgram(**found, cones=cones)
    assert half.triangle == triangle
    assert f"P={triangle} triangle given, mirrored" in repr(half)
    assert whole.triangle == "full"
    one, two = (np.asarray(solve(p, None, max_evaluations=30, eps_abs=0, eps_rel=0).x) for p in (half, whole))
    assert np.abs(one - two).max() < 1e-12


def test_the_gradient_of_a_triangle_is_that_of_the_triangle() -> None:
    one = program("QP", 0)
    upper = one.P.triu() + torch.eye(one.n, dtype=torch.float64)

    def loss(P: torch.Tensor, gradient: Any = None) -> torch.Tensor:
        return solve(ConeProgram(one.A, one.b, one.c, P, one.cones), gradient=gradient, **TIGHT).x.square().sum()

    live = upper.clone().requires_grad_()
    loss(live, "implicit").backward()
    i, j = np.argwhere(np.triu(one.P.numpy(), 1))[0]
    step = torch.zeros_like(upper)
    step[i, j] = 1e-5
    expected = (loss(upper + step) - loss(upper - step)) / 2e-5
    assert abs(expected) > 1e-4
    assert float(live.grad[i, j]) == pytest.approx(float(expected), rel=1e-3)
    assert float(live.grad.tril(-1).abs().max()) == 0.0


@pytest.mark.parametrize("kind", CONES)
def test_a_warm_start_is_used_and_said_to_be(kind: str) -> None:
    many = batch(kind, range(3))
    cold = solve(many, None, **FAIR)
    assert not cold.warm_started.any()
    warm = solve(many, None, warm_start=cold, **FAIR)
    assert warm.warm_started.all()
    assert (warm.evaluations < cold.evaluations / 2).all()
    parts = solve(many, None, warm_start=(cold.x.numpy(), cold.y, cold.s), **FAIR)
    assert torch.equal(parts.x, warm.x)


def test_an_instance_without_a_finite_start_begins_cold() -> None:
    many = batch("SOCP", range(3))
    cold = solve(many, None, **FAIR)
    x = cold.x.clone()
    x[1, 0] = torch.nan
    warm = solve(many, None, warm_start=(x, cold.y, cold.s), **FAIR)
    assert warm.warm_started.tolist() == [True, False, True]
    assert warm.evaluations[1] == cold.evaluations[1]
    assert torch.equal(warm.x[1], cold.x[1])


def test_a_warm_start_follows_the_wheel() -> None:
    import scs

    found, cones = data("QP", 1)
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(k) for k in (20, 26, 26)]
    parts = {**found, "P": sparse.triu(found["P"]).tocsc()}
    options = {"acceleration_lookback": 0, "adaptive_scale": False, "verbose": False, "max_iters": 8}
    endless = {"eps_abs": 0, "eps_rel": 0, "eps_infeas": 0, "linear_solver": scs.LinearSolver.CPU_DENSE}
    theirs = scs.SCS(parts, cones, **options, **endless).solve(warm_start=True, x=start[0], y=start[1], s=start[2])
    ours = solve(ConeProgram(**found, cones=cones), None, warm_start=start, eps_abs=0, eps_rel=0, max_evaluations=7)
    for part in "xys":
        assert np.abs(getattr(ours, part) - theirs[part]).max() < 1e-10


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (1.0, r"warm_start: expected \(x, y, s\) or a ConicSolution, got float"),
        ((np.zeros(20),), "warm_start: expected"),
        (("a", "b", "c"), "warm_start: x: expected numbers"),
        ((np.zeros(19), np.zeros(26), np.zeros(26)), r"warm_start: x: expected shape \(20,\), got \(19,\)"),
        ((np.zeros((1, 20)), np.zeros(26), np.zeros(26)), "warm_start: x: expected shape"),
    ],
)
def test_bad_warm_starts(start: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        solve(program("QP", 0), warm_start=start)


def test_a_gradient_with_respect_to_the_start_is_refused() -> None:
    one = program("QP", 0)
    cold = solve(one)
    start = tuple(getattr(cold, part).clone().requires_grad_() for part in "xys")
    with pytest.raises(ValueError, match="start: its gradient through a fixed point is exactly zero"):
        solve(one, warm_start=start, gradient="implicit")


def test_progress_is_reported_at_every_check_and_can_stop() -> None:
    many = batch("SOCP", range(4))
    seen: list[fp.Progress] = []
    solution = solve(many, None, callback=seen.append, check_interval=10, eps_abs=1e-6, max_evaluations=1000)
    counts = [progress.evaluations for progress in seen]
    assert counts == list(range(10, int(solution.evaluations.max()) + 1, 10))
    assert all(progress.residual.shape == (4,) for progress in seen)
    assert torch.equal(seen[-1].status, solution.status)
    stopped = solve(many, None, callback=lambda progress: progress.evaluations == 20, check_interval=10)
    assert stopped.statuses == [fp.Status.MAX_EVALUATIONS] * 4
    assert (stopped.evaluations == 20).all()


def test_single_instances_of_a_batch() -> None:
    many = batch("QP", range(3))
    solution = solve(many)
    assert len(solution) == 3
    assert [one.statuses for one in solution] == [[s] for s in solution.statuses]
    assert torch.equal(solution[1].x, solution.x[1])
    assert float(solution[2].objective) == float(solution.objective[2])
    with pytest.raises(TypeError, match="a single program's solution has no length"):
        len(solution[0])
    with pytest.raises(IndexError):
        solution[3]


@pytest.mark.parametrize("accelerator", [None, "safeguarded"])
def test_bad_neighbours_do_not_move_the_others(accelerator: str | None) -> None:
    """One infeasible and one ill-scaled instance in a batch of 64."""
    good = batch("QP", range(64))
    options: Any = {**GOOD, "max_evaluations": 600}
    alone = solve(good, accelerator, **options)
    assert int(alone.converged.sum()) > 32
    A, b, c = good.A.clone(), good.b.clone(), good.c.clone()
    b[7] = -1.0  # 0 x = -1 in a row of the zero cone
    A[7, 0] = 0.0
    scale = torch.logspace(-8, 8, good.n, dtype=torch.float64)
    A[21], c[21] = A[21] * scale, c[21] * scale
    mixed = solve(ConeProgram(A, b, c, good.P, good.cones), accelerator, **options)
    rest = [i for i in torch.nonzero(alone.converged).flatten().tolist() if i not in (7, 21)]
    for part in "xys":
        assert float((getattr(mixed, part) - getattr(alone, part))[rest].abs().max()) <= 1e-8
    assert torch.equal(mixed.status[rest], alone.status[rest])
    assert mixed.statuses[7] is fp.Status.PRIMAL_INFEASIBLE
    hard, one = ConeProgram(A[21], b[21], c[21], good.P[21], good.cones), mixed[21]
    assert one.statuses != [fp.Status.CONVERGED] or kkt_error(hard, one.x, one.y, one.s) < 1e-6


def test_what_was_given_may_change_later() -> None:
    found, cones = data("QP", 0)
    b = found["b"].copy()
    one = ConeProgram(found["A"], b, found["c"], found["P"], cones)
    b[:] = np.nan
    assert solve(one).statuses == [fp.Status.CONVERGED]


@pytest.mark.parametrize("eps", [{"eps_abs": 0.0, "eps_rel": 1e-6}, {"eps_abs": 1e-6, "eps_rel": 0.0}], ids=str)
def test_conditions_without_any_size(eps: dict[str, float]) -> None:
    """min 0 subject to x <= 1: nothing to be relative to, and nothing wrong."""
    solution = solve(ConeProgram(np.ones((1, 1)), np.ones(1), np.zeros(1), cones={"l": 1}), **eps)
    assert solution.statuses == [fp.Status.CONVERGED]


@pytest.mark.parametrize("factor", [1e4, 1e8])
def test_scaled_rows(factor: float) -> None:
    """The same box in other units: the scale must adapt."""
    A, b = factor * np.vstack([np.eye(3), -np.eye(3)]), factor * np.ones(6)
    program = ConeProgram(A, b, np.array([1.0, -2.0, 0.5]), np.eye(3), {"l": 6})
    solution = solve(program, max_evaluations=2000)
    assert solution.statuses == [fp.Status.CONVERGED]
    assert np.abs(solution.x - [-1.0, 1.0, -0.5]).max() < 1e-3


def test_a_solve_resumes_from_the_state_it_returned() -> None:
    one = program("QP", 4)
    map = SCS.of(one, adaptive_scale=True, scale=1e-3)
    first = fp.solve(map, one, "safeguarded", tolerance=1e-8, max_evaluations=5000, check_interval=5)
    assert int(first.evaluations) > 100, "the scale was never moved"
    again = fp.solve(map, one, None, tolerance=1e-6, start=first.x)
    assert int(again.evaluations) < int(first.evaluations) / 5


def test_a_scale_that_cannot_be_factored_is_not_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch goes on with the scales that it has, and does not try again at every check."""
    one = program("QP", 4)
    options: Any = {"scale": 1e-3, "max_evaluations": 450, "check_interval": 10, "eps_abs": 0.0, "eps_rel": 0.0}
    calm = solve(one, None, adaptive_scale=False, **options)
    factor, calls = linear_systems.factor, []

    def first_only(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            raise FactorizationError("none of them")
        return factor(*arguments, **options)

    monkeypatch.setattr(linear_systems, "factor", first_only)
    found = solve(one, None, **options)
    assert len(calls) == 1 + 4, "once for every hundred evaluations"
    assert torch.allclose(found.x, calm.x, rtol=0, atol=1e-9)


def test_bad_starts_of_the_map() -> None:
    one = program("QP", 0)
    map, point = SCS.of(one), solve(one)
    with pytest.raises(ValueError, match="start: expected x, y, s of widths 20, 26, 26"):
        fp.solve(map, one, start=ConicPoint(point.x[1:], point.y, point.s))
    with pytest.raises(TypeError, match=r"start: expected x, y and s of dtype torch\.float64"):
        fp.solve(map, one, start=ConicPoint(point.x.float(), point.y.float(), point.s.float()))


@pytest.mark.parametrize("n", [0, -3, 1.5, True])
def test_bad_numbers_of_variables(n: Any) -> None:
    with pytest.raises(ValueError, match="n: expected a whole number >= 1"):
        SCS(n, {"l": 2})


def test_a_large_sparse_quadratic_is_checked_quickly() -> None:
    n = 2000
    second = sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1]).tocsc()
    rows = sparse.eye_array(n).tocsc()
    good = ConeProgram(rows, np.ones(n), -np.ones(n), second, {"l": n})
    assert solve(good, max_evaluations=3, linear_solver="sparse").statuses == [fp.Status.MAX_EVALUATIONS]
    bad = ConeProgram(rows, np.ones(n), -np.ones(n), second - 1e-3 * rows, {"l": n})
    with pytest.raises(ValueError, match="P: expected a positive semidefinite matrix"):
        solve(bad)


def test_sparse_matrices_of_the_wrong_size() -> None:
    found, cones = data("QP", 0)
    with pytest.raises(ValueError, match=r"A: expected \(26, 20\)"):
        ConeProgram(found["A"][1:], found["b"], found["c"], cones=cones)
    matrix = SparseMatrix.of(found["A"])
    with pytest.raises(ValueError, match="stored entries, got"):
        SparseMatrix(matrix.values[1:], matrix.pattern)
    skew = found["P"] + sparse.csc_matrix(([1.0], ([0], [1])), shape=found["P"].shape)
    with pytest.raises(ValueError, match="P: expected a symmetric"):
        solve(ConeProgram(found["A"], found["b"], found["c"], skew, cones))
    with pytest.raises(ValueError, match="P: expected a positive semidefinite"):
        solve(ConeProgram(found["A"], found["b"], found["c"], -found["P"], cones))


@pytest.mark.parametrize("places", [[0, 1], [2], [1, 2]])
def test_a_sparse_p_is_tested_where_it_couples_and_where_it_does_not(places: list[int]) -> None:
    """Variables 0 and 1 hang together, 2 stands alone; a negative curvature of either is found, by instance."""
    P = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    bad = P.copy()
    bad[places, places] = -1.0
    both = [sparse.csr_matrix(P), sparse.csr_matrix(bad)]
    A, b, c = np.eye(3), np.ones((2, 3)), np.ones((2, 3))
    with pytest.raises(ValueError, match=r"P: expected a positive semidefinite matrix.*instance\(s\) \[1\]"):
        solve(ConeProgram(A, b, c, both, {"l": 3}))
    assert solve(ConeProgram(A, b, c, both[:1] * 2, {"l": 3})).converged.all()


def test_both_doors_cut_a_large_batch_into_what_a_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    split = chunks.solve

    def noting(part: Any, look: Any, size: int, chunk: int, *rest: Any) -> Any:
        rows.append(chunk)
        return split(part, look, size, chunk, *rest)

    monkeypatch.setattr(solve_batches, "CACHE", 1)
    monkeypatch.setattr(chunks, "solve", noting)
    A, b = np.vstack([np.eye(2), -np.eye(2)]), np.ones(4)
    many = ConeProgram(A, b, np.random.default_rng(0).standard_normal((100, 2)), np.eye(2), {"l": 4})
    solve(many, max_evaluations=3)
    fp.solve(SCS.of(many), many, max_evaluations=3)
    assert rows == [64, 64]
