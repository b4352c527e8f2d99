"""The linear systems: the three kinds agree, differentiate, and refuse what they cannot do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

import fixedpoint as fp
from maps.scs import SCS, ConeProgram, FactorizationError, SparseMatrix, linear_systems, solve
from maps.scs.linear_systems.conjugate_gradients import conjugate_gradients
from maps.scs.problem.sparse_matrix import Pattern
from tests.maps.scs.linear_systems.factored import factor
from tests.maps.scs.programs import CONES, data

KINDS = ("dense", "condensed", "sparse", "cg")
M, N, BATCH = 7, 5, 3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(shared: bool) -> tuple[SparseMatrix, SparseMatrix]:
    """A and a positive semidefinite P, sparse."""
    pattern = sparse.random(M, N, 0.6, random_state=0, format="csr")
    A = SparseMatrix.of(pattern)
    lead = () if shared else (BATCH,)
    root = SparseMatrix.of(sparse.diags_array(np.arange(1.0, N + 1)).tocsr())
    values = 1 + 0.1 * random(*lead, N, seed=2)
    return SparseMatrix(random(*lead, len(A.pattern), seed=1), A.pattern), SparseMatrix(values, root.pattern)


def solver(kind: str) -> Callable[..., Tensor]:
    """(values of A, values of P, top, bottom) -> the solution, for patterns of `matrices`."""
    A, P = matrices(True)
    R_y = torch.linspace(0.5, 2.0, M, dtype=torch.float64)

    def of(a: Tensor, p: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
        parts = SparseMatrix(a, A.pattern), SparseMatrix(p, P.pattern)
        if kind == "dense":
            return factor(kind, parts[0].to_dense(), parts[1].to_dense(), R_y, 0.1).solve(torch.cat([top, bottom], 1))
        return factor(kind, *parts, R_y, 0.1).solve(torch.cat([top, bottom], 1))

    return of


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_system_is_solved(kind: str, shared: bool) -> None:
    A, P = matrices(shared)
    top, bottom = random(BATCH, N, seed=3), random(BATCH, M, seed=4)
    found = solver(kind)(A.values, P.values, top, bottom)
    R_y = torch.linspace(0.5, 2.0, M, dtype=torch.float64)
    for i in range(BATCH):
        a, p = (m.to_dense() if shared else m.to_dense()[i] for m in (A, P))
        K = torch.cat(
            [torch.cat([p + 0.1 * torch.eye(N, dtype=torch.float64), a.mT], 1), torch.cat([a, -torch.diag(R_y)], 1)], 0
        )
        assert torch.allclose(K @ found[i], torch.cat([top[i], bottom[i]]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_differentiable_in_both_modes(kind: str, shared: bool) -> None:
    A, P = matrices(shared)
    inputs = A.values, P.values, random(BATCH, N, seed=3), random(BATCH, M, seed=4)
    live = tuple(t.clone().requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(solver(kind), live, check_forward_ad=True, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_axis_joins_the_batch(kind: str) -> None:
    A, P = matrices(True)
    of, top, bottom = solver(kind), random(4, BATCH, N, seed=3), random(4, BATCH, M, seed=4)
    mapped = torch.func.vmap(of, in_dims=(None, None, 0, 0))(A.values, P.values, top, bottom)
    for i in range(4):
        assert torch.allclose(mapped[i], of(A.values, P.values, top[i], bottom[i]), atol=1e-12)


@pytest.mark.parametrize("kind", ["sparse", "cg"])
@pytest.mark.parametrize("name", CONES)
def test_iterates_do_not_depend_on_the_kind(name: str, kind: str) -> None:
    found, cones = data(name, 3)
    program = ConeProgram(**found, cones=cones)
    one, two = (
        solve(program, "anderson-2", eps_abs=0, eps_rel=0, max_evaluations=15, linear_solver=k) for k in ("dense", kind)
    )
    assert max(np.abs(getattr(one, part) - getattr(two, part)).max() for part in "xys") < 1e-9


@pytest.mark.parametrize("normalize", [True, "shared", False])
def test_one_sparse_factor_serves_a_batch_that_shares_its_matrices(normalize: bool | str) -> None:
    found, cones = data("QP", 1)
    b = found["b"] * np.linspace(0.5, 1.5, 4)[:, None]
    batch = ConeProgram(found["A"], b, found["c"], found["P"], cones)
    map = SCS.of(batch, normalize=normalize, linear_solver="sparse")
    context = map.setup(batch)
    system = context.shared.system or context.rows.system
    assert len(system.factors) == (4 if normalize is True else 1), "only SCS's own scaling differs between instances"
    solution = solve(batch, normalize=normalize, linear_solver="sparse", eps_abs=1e-8, eps_rel=1e-8, scale=1.0)
    for i in range(4):
        one = solve(ConeProgram(found["A"], b[i], found["c"], found["P"], cones), eps_abs=1e-8, eps_rel=1e-8, scale=1.0)
        assert np.abs(solution[i].x - one.x).max() < 1e-5


def test_adaptive_scale_with_sparse_factors() -> None:
    found, cones = data("QP", 4)
    program = ConeProgram(**found, cones=cones)
    one, two = (
        solve(program, None, adaptive_scale=True, check_interval=25, eps_abs=1e-7, eps_rel=1e-7, linear_solver=kind)
        for kind in ("dense", "sparse")
    )
    assert one.evaluations == two.evaluations > 100
    assert np.abs(one.x - two.x).max() < 1e-9


def test_gradients_through_a_sparse_program() -> None:
    found, cones = data("QP", 0)
    A, P = SparseMatrix.of(found["A"]), SparseMatrix.of(found["P"])
    b, c = torch.as_tensor(found["b"]), torch.as_tensor(found["c"])
    weights = random(len(c))

    def loss(values: Tensor, kind: str, gradient: str | None = None) -> Tensor:
        program = ConeProgram(SparseMatrix(values, A.pattern), b, c, P, cones)
        options = {"eps_abs": 1e-11, "eps_rel": 1e-11, "scale": 1.0, "linear_solver": kind}
        return (solve(program, "anderson-2", gradient=gradient, **options).x * weights).sum()  # type: ignore[arg-type]

    direction = random(len(A.pattern), seed=1)
    with torch.no_grad():
        expected = (loss(A.values + 1e-6 * direction, "dense") - loss(A.values - 1e-6 * direction, "dense")) / 2e-6
    assert abs(expected) > 1e-3
    for kind in ("dense", "sparse"):
        gradient = torch.func.grad(loss)(A.values, kind, "implicit")
        assert gradient.shape == A.values.shape
        assert float(gradient @ direction) == pytest.approx(float(expected), rel=1e-5)


def test_a_singular_instance_does_not_end_the_others() -> None:
    found, cones = data("LP", 1)
    A = SparseMatrix.of([found["A"]] * 3)
    spoilt = SparseMatrix(A.values * torch.tensor([1.0, 1e200, 1.0], dtype=torch.float64)[:, None], A.pattern)
    program = ConeProgram(spoilt, torch.as_tensor(found["b"]), torch.as_tensor(found["c"]), cones=cones)
    statuses = solve(program, scale=1.0, linear_solver="sparse", normalize=False).statuses
    assert [statuses[0], statuses[2]] == [fp.Status.CONVERGED] * 2
    assert statuses[1] is not fp.Status.CONVERGED


def test_factors_that_lie_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar:
        def solve(self, right: np.ndarray) -> np.ndarray:
            return 0.7 * right

    monkeypatch.setattr("scipy.sparse.linalg.splu", lambda *_, **__: Liar())
    with pytest.raises(FactorizationError, match="could not be factored accurately"):
        factor("sparse", *matrices(True), torch.ones(M, dtype=torch.float64), 0.1)


def test_conjugate_gradients_stops_each_row_by_itself() -> None:
    diagonal = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1e3, 1e6]], dtype=torch.float64)
    calls = []

    def apply(v: Tensor) -> Tensor:
        calls.append(v)
        return diagonal * v

    right = torch.ones(2, 3, dtype=torch.float64)
    x = conjugate_gradients(apply, right, torch.ones_like(right), 1e-12)
    assert torch.allclose(diagonal * x, right, atol=1e-9)
    assert 3 <= len(calls) <= 6
    assert torch.equal(conjugate_gradients(apply, 0 * right, torch.ones_like(right), 1e-12), 0 * right)


def full(n: int) -> Pattern:
    """Every entry stored."""
    rows, columns = np.divmod(np.arange(n * n), n)
    return Pattern(rows, columns, (n, n))


def diagonal(n: int) -> Pattern:
    return Pattern(np.arange(n), np.arange(n), (n, n))


def chosen(A: Pattern, P: Pattern | None, copies: int, rights: int | None = None) -> str:
    return linear_systems.choose("auto", A, P, copies, rights).name


def test_what_auto_stands_for() -> None:
    assert chosen(full(100), None, 1000) == "dense"
    assert chosen(diagonal(100), None, 1000) == chosen(diagonal(100), diagonal(100), 1) == "condensed"
    assert chosen(diagonal(10), None, 1) == "dense"
    assert chosen(diagonal(100), None, 1, rights=100) == "sparse"
    assert chosen(diagonal(20_000), None, 1) == "sparse"
    assert chosen(diagonal(20_000), None, 1000) == "cg"
