"""Static condensation: any pattern, one K or many, exact or refined, and what happens where it is not accurate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from maps.scs import ConeProgram, SparseMatrix, solve
from maps.scs.families.lasso import Lasso
from maps.scs.families.robust_kalman import template
from maps.scs.linear_systems import dense
from maps.scs.linear_systems.condensed import factor as condensed
from maps.scs.linear_systems.condensed.ordering import plan
from maps.scs.problem.sparse_matrix import Pattern
from tests.maps.scs.linear_systems.factored import factor


def programs(n: int, m: int, density: float, seed: int, batch: int | None) -> tuple[SparseMatrix, SparseMatrix]:
    """A (m, n) and a positive semidefinite P (n, n) with random patterns; P leaves some diagonal entries out."""
    random = np.random.default_rng(seed)
    a = sparse.random_array((m, n), density=density, rng=random, format="csr")
    root = sparse.random_array((n, n), density=min(density, 2 / n), rng=random, format="csr")
    p = (root @ root.T).tocsr()
    A, P = SparseMatrix.of(a), SparseMatrix.of(p)
    if batch is not None:
        factors = torch.from_numpy(random.uniform(0.5, 2, (batch, 1)))
        entries = torch.from_numpy(random.normal(size=(batch, len(A.pattern))))
        A, P = SparseMatrix(entries, A.pattern), SparseMatrix(factors * P.values, P.pattern)
    return A, P


def kkt(A: Tensor, P: Tensor, R_y: Tensor, rho_x: float) -> Tensor:
    return torch.cat(
        [
            torch.cat([P + rho_x * torch.eye(P.shape[-1], dtype=P.dtype), A.mT], -1),
            torch.cat([A, torch.diag_embed(-R_y)], -1),
        ],
        -2,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]),
    st.integers(0, 99),
    st.booleans(),
)
def test_any_pattern_is_solved(n: int, m: int, density: float, seed: int, shared: bool) -> None:
    A, P = programs(n, m, density, seed, None if shared else 3)
    generator = torch.Generator().manual_seed(seed)
    R_y = 10 ** (torch.rand(*([m] if shared else [3, m]), generator=generator, dtype=torch.float64) * 2 - 2)
    right = torch.randn(3, n + m, generator=generator, dtype=torch.float64)
    found = factor("condensed", A, P, R_y, 1e-3).solve(right)
    K = kkt(A.to_dense(), P.to_dense(), R_y, 1e-3).expand(3, -1, -1)
    back = (K @ found[:, :, None])[:, :, 0]
    assert (back - right).abs().max() <= 1e-9 * (1 + K.abs().amax() * found.abs().amax())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.sampled_from([0.1, 0.3, 0.7]), st.integers(0, 99), st.booleans())
def test_every_unknown_is_eliminated_once(n: int, m: int, density: float, seed: int, shared: bool) -> None:
    A, P = programs(n, m, density, seed, None)
    found = plan(A.pattern, P.pattern, shared=shared)
    order = np.concatenate([*(step.pivots for step in found.rounds), found.block, found.core])
    assert sorted(order.tolist()) == list(range(n + m))
    diagonal = set(P.pattern.rows[P.pattern.rows == P.pattern.columns].tolist())
    touched: set[int] = set()
    for step in found.rounds:
        pivots = set(step.pivots.tolist())
        assert not pivots & set(step.edge_other.tolist()), "pivots of a round touch each other"
        for pivot in pivots:
            assert pivot >= n or pivot in diagonal or pivot in touched, "its pivot is rho_x alone"
        touched |= set(step.edge_other.tolist())


def test_the_families_condense_to_little() -> None:
    lasso = Lasso("quadratic").sample(1, generator=torch.Generator().manual_seed(0))
    found = plan(lasso.patterns["A"], lasso.patterns["P"], shared=False)
    assert (len(found.core), len(found.block)) == (50, 100)  # the Gram matrix of the coefficients
    kalman = template("quadratic").program
    found = plan(kalman.patterns["A"], kalman.patterns["P"], shared=True)
    assert len(found.core) < 200  # of 1204


def hard(batch: int) -> tuple[SparseMatrix, Tensor]:
    """A, and R_y (batch, m) that spoils the condensed factor of the last instance: pivots of 1e-14 beside 1."""
    A = SparseMatrix.of(sparse.random_array((40, 30), density=0.2, rng=np.random.default_rng(0), format="csr"))
    R_y = torch.ones(batch, 40, dtype=torch.float64)
    R_y[-1, ::2] = 1e-13
    return SparseMatrix(A.values.expand(batch, -1), A.pattern), R_y


def test_only_the_instance_that_needs_it_is_solved_otherwise() -> None:
    A, R_y = hard(4)
    system = factor("condensed", A, None, R_y, 1e-3)
    assert isinstance(system, condensed.Condensed)
    assert system.refined is not None or system.direct is not None
    for mask in (system.refined, system.direct):
        assert mask is None or mask[:, 0].tolist() == [False, False, False, True]
    right = torch.ones(4, 70, dtype=torch.float64)
    easy = SparseMatrix(A.values[:3], A.pattern)
    alone = factor("condensed", easy, None, R_y[:3], 1e-3).solve(right[:3])
    torch.testing.assert_close(system.solve(right)[:3], alone, rtol=1e-13, atol=1e-13)


def test_where_condensation_fails_for_all_the_dense_factor_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condensed, "_TOLERANCE", {torch.float64: -1.0})
    for shared in (True, False):
        A, P = programs(6, 8, 0.5, 0, None if shared else 2)
        assert isinstance(factor("condensed", A, P, torch.ones(8, dtype=torch.float64), 0.1), dense.Dense)


def test_matrices_that_are_differentiated_get_a_dense_factor() -> None:
    A, P = programs(6, 8, 0.5, 0, None)
    ones = torch.ones(1, 14, dtype=torch.float64)

    def answer(values: Tensor) -> Tensor:
        return factor("condensed", SparseMatrix(values, A.pattern), P, ones[0, :8], 0.1).solve(ones)

    assert torch.autograd.gradcheck(answer, A.values.clone().requires_grad_())
    one = torch.func.jacrev(answer)(A.values)
    torch.testing.assert_close(torch.func.jacfwd(answer)(A.values), one)
    torch.testing.assert_close(torch.func.vmap(answer)(torch.stack([A.values] * 2))[1], answer(A.values))


@pytest.mark.parametrize("shared", [True, False])
def test_a_solve_takes_the_same_path_with_every_kind(shared: bool) -> None:
    A, P = programs(20, 30, 0.15, 1, None if shared else 3)
    generator = torch.Generator().manual_seed(0)
    b, c = (torch.randn(3, k, generator=generator, dtype=torch.float64) for k in (30, 20))
    program = ConeProgram(A, b.abs(), c, P, {"l": 30})
    options = {
        "normalize": False,
        "adaptive_scale": False,
        "max_evaluations": 30,
        "eps_abs": 0,
        "eps_rel": 0,
        "scale": 1,
    }
    one, two = (solve(program, None, linear_solver=kind, **options) for kind in ("dense", "condensed"))
    for name in ("x", "y", "s"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-9)


def test_float32_is_solved_in_float32() -> None:
    for shared in (True, False):
        A, P = programs(10, 12, 0.3, 3, None if shared else 2)
        R_y, right = torch.ones(12), torch.ones(2, 22)
        single = [SparseMatrix(part.values.float(), part.pattern) for part in (A, P)]
        found = factor("condensed", *single, R_y, 0.1).solve(right)
        exact = factor("dense", A.to_dense(), P.to_dense(), R_y.double(), 0.1).solve(right.double())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_what_float32_cannot_eliminate_is_eliminated_in_float64() -> None:
    """Only the instance that needs it, and none has to be refined in every solve."""
    A = SparseMatrix.of(sparse.random_array((40, 30), density=0.2, rng=np.random.default_rng(0), format="csr"))
    A = SparseMatrix(A.values.float().expand(3, -1), A.pattern)
    R_y = torch.ones(3, 40)
    R_y[-1, ::2] = 0.03
    system = factor("condensed", A, None, R_y, 1e-3)
    assert isinstance(system, condensed.Condensed)
    assert system.refined is None
    assert system.direct is None
    exact = factor("condensed", SparseMatrix(A.values.double(), A.pattern), None, R_y.double(), 1e-3)
    assert isinstance(exact, condensed.Condensed)
    for part, better in zip(system.factors, exact.factors, strict=True):
        assert torch.equal(part[2], better[2].float())
    easy = factor("condensed", SparseMatrix(A.values[:2], A.pattern), None, R_y[:2], 1e-3)
    assert isinstance(easy, condensed.Condensed)
    for part, alone in zip(system.factors, easy.factors, strict=True):
        assert torch.equal(part[:2], alone)


def test_a_pattern_is_planned_once() -> None:
    A, _ = programs(6, 8, 0.5, 5, None)
    again = Pattern(A.pattern.rows.copy(), A.pattern.columns.copy(), A.pattern.shape)
    assert plan(A.pattern, None, shared=True) is plan(again, None, shared=True)


def test_a_support_is_used_up_once() -> None:
    """w stands in two equations without a weight: once one of them went on its support, nothing is left of it for the
    other, which has to wait for the core.
    """
    pattern = Pattern(np.array([0, 1, 1]), np.array([0, 0, 1]), (2, 2))  # w alone, and w with x
    A = SparseMatrix(torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 1.0]]).double(), pattern)
    P = SparseMatrix(torch.ones(2, 1, dtype=torch.float64), Pattern(np.array([0]), np.array([0]), (2, 2)))
    system = factor("condensed", A, P, torch.full((2,), 1e-12, dtype=torch.float64), 1e-12, unweighted_rows=2)
    assert isinstance(system, condensed.Condensed)
    assert system.refined is None
    assert system.direct is None
