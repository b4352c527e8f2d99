"""The fast way through the adjoint system: as right as the slow one, and silent about what is singular."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from maps.scs import ConeProgram
from maps.scs.adjoint import polyhedral
from maps.scs.adjoint import scaling as adjoint_scaling
from maps.scs.adjoint import solve as adjoint_solve
from maps.scs.adjoint import system as adjoint_system
from maps.scs.adjoint.vjp import ProgramGradient, vjp
from maps.scs.iteration import equilibration
from maps.scs.problem.sparse_matrix import sparse as stored
from tests.maps.scs.solved_programs import Solved, cotangents, draw, normal, times

LEAVES = ("A", "b", "c", "P")


def made(A: Tensor, P: Tensor | None, seed: int, equalities: int) -> Solved:
    """Programs with these matrices and a random solution."""
    generator = torch.Generator().manual_seed(seed)
    batch, m, n = A.shape
    w, x = normal(generator, batch, m), normal(generator, batch, n)
    s = w.relu()
    s[:, :equalities] = 0
    b, c = times(A, x) + s, -times(A.mT, s - w) - (0 if P is None else times(P, x))
    return Solved(ConeProgram(A, b, c, P, {"z": equalities, "l": m - equalities}), x, s - w, s)


def residuals(batch: int, seed: int = 0, n: int = 6, m: int = 9) -> Solved:
    """Minimize |r|^2 over M x - r = h, x >= 0: the variables r have rows of their own."""
    generator = torch.Generator().manual_seed(seed)
    M = normal(generator, batch, m, n)
    eye = torch.eye(m + n, dtype=M.dtype).expand(batch, -1, -1)
    A = torch.cat([torch.cat([M, -eye[:, :m, :m]], 2), torch.cat([-eye[:, :n, :n], 0 * M.mT], 2)], 1)
    P = torch.diag(torch.cat([torch.zeros(n), 2 * torch.ones(m)]).double()).expand(batch, -1, -1)
    return made(A, P, seed, m)


def in_sparse(solved: Solved) -> Solved:
    program, patterns = solved.program, solved.program.patterns
    P = None if program.P is None else stored(program.P, patterns["P"])
    return solved._replace(
        program=ConeProgram(stored(program.A, patterns["A"]), program.b, program.c, P, program.cones)
    )


def both(solved: Solved, monkeypatch: pytest.MonkeyPatch) -> tuple[ProgramGradient, ProgramGradient]:
    """The fast way alone, and the slow one."""
    d = cotangents(solved)
    with monkeypatch.context() as patch:
        patch.setattr(adjoint_solve, "_factored", None)
        fast = vjp(solved.program, *solved.points, *d)
    with monkeypatch.context() as patch:
        patch.setattr(polyhedral, "applies", lambda system: False)
        return fast, vjp(solved.program, *solved.points, *d)


def dense(matrix: Tensor) -> Tensor:
    return matrix if isinstance(matrix, Tensor) else matrix.to_dense()


@pytest.mark.parametrize("kind", ["LP", "QP", "residuals"])
@pytest.mark.parametrize("layout", [Solved, in_sparse], ids=["dense", "sparse"])
def test_as_the_slow_one(kind: str, layout: object, monkeypatch: pytest.MonkeyPatch) -> None:
    solved = residuals(20) if kind == "residuals" else draw(kind, 20, worst=1e3)
    solved = in_sparse(solved) if layout is in_sparse else solved
    fast, slow = both(solved, monkeypatch)
    assert not fast.degenerate.any()
    assert not slow.degenerate.any()
    assert (fast.residual < 1e-12).all()
    for name in LEAVES:
        u, v = getattr(fast, name), getattr(slow, name)
        if v is not None:
            u, v = (dense(t).flatten(1) for t in (u, v))
            assert ((u - v).norm(dim=1) <= 1e-10 * v.norm(dim=1)).all(), name


def test_what_a_batch_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = residuals(1)
    A, P = solved.program.A[0], solved.program.P[0]
    w = normal(torch.Generator().manual_seed(3), 5, len(A))
    s = torch.cat([torch.zeros(5, 9, dtype=w.dtype), w[:, 9:].relu()], 1)
    x = solved.x.expand(5, -1)
    b, c = x @ A.mT + s, -(s - w) @ A - x @ P
    for matrices in ((A, P), (sparse.csc_matrix(A.numpy()), sparse.csc_matrix(P.numpy()))):
        many = Solved(ConeProgram(matrices[0], b, c, matrices[1], solved.program.cones), x, s - w, s)
        fast, slow = both(many, monkeypatch)
        assert torch.allclose(dense(fast.A), dense(slow.A), rtol=1e-10, atol=1e-12)
        assert torch.allclose(fast.b, slow.b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_vouches_for_no_singular_system(seed: int) -> None:
    """Rows and columns that are equal up to a distance from 1e-14 to 1: none that the slow way calls singular."""
    generator = torch.Generator().manual_seed(seed)
    B, n, m, equalities = 60, 3 + seed % 5, 5 + seed % 7, seed % 4
    A = normal(generator, B, m, n)
    distance = 10 ** (-14 * torch.rand(B, 1, generator=generator, dtype=A.dtype))
    distance[::6] = 0
    A[::2, m - 1] = (A[:, m - 2] + distance * normal(generator, B, n))[::2]
    A[::3, :, n - 1] = (A[:, :, 0] + distance * normal(generator, B, m))[::3]
    G = normal(generator, B, n, seed % 3)
    solved = made(A, G @ G.mT if seed % 3 else None, seed, equalities)
    system, _ = adjoint_system.balanced(solved.program, solved.y, solved.s)
    rhs = normal(generator, B, n + m)
    z, good = polyhedral.solve(system, rhs)
    M = system.matrix()
    exact, singular = adjoint_solve._factored(M, rhs)
    assert singular.any()
    assert not (good & singular).any()
    values = torch.linalg.svdvals(M)
    regular = values[:, -1] > 1e-3 * values[:, 0]
    assert (regular & good).sum() >= 0.9 * regular.sum(), "who is far from singular is vouched for"
    error = (z - exact).norm(dim=1) / exact.norm(dim=1)
    assert (error * values[:, -1] / values[:, 0] < 1e-12)[good].all()


def test_a_neighbour_changes_no_bit() -> None:
    """That is singular, needs more steps, or a scaling."""
    solved = draw("QP", 6, worst=1e3)
    A = solved.program.A.clone()
    A[1, 1] = A[1, 0]
    A[2, :, 3] *= 1e5
    d = cotangents(solved)
    program = solved.program
    one = vjp(program, *solved.points, *d)
    two = vjp(ConeProgram(A, program.b, program.c, program.P, program.cones), *solved.points, *d)
    others = torch.tensor([0, 3, 4, 5])
    for name in LEAVES:
        assert torch.equal(getattr(one, name)[others], getattr(two, name)[others])
    assert two.degenerate.tolist() == [False, True, False, False, False, False]


def test_pairs() -> None:
    program = residuals(2).program
    found = polyhedral.pairs(program.patterns["A"], program.patterns["P"], 9)
    assert found.rows.tolist() == list(range(9))
    assert found.columns.tolist() == list(range(6, 15))
    assert not found.curved
    assert torch.equal(found.order[found.back], torch.arange(30))
    assert len(polyhedral.pairs(program.patterns["A"], program.patterns["P"], 4).rows) == 4
    full = ConeProgram(program.A, program.b, program.c, torch.ones_like(program.P), program.cones)
    assert len(polyhedral.pairs(full.patterns["A"], full.patterns["P"], 9).rows) == 0


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_only_who_needs_it_is_scaled(layout: str) -> None:
    solved = residuals(4)
    A = solved.program.A.clone()
    A[2, 3] *= 1e3
    for matrix, which in ((solved.program.A, []), (A, [2])):
        program = ConeProgram(matrix, solved.program.b, solved.program.c, solved.program.P, solved.program.cones)
        if layout == "sparse":
            program = in_sparse(solved._replace(program=program)).program
        found = adjoint_scaling.diagonals(program, equilibration.Data(program.A, program.P, program.b, program.c))
        if not which:
            assert found is None
            continue
        assert found is not None
        scaled = [i for i in range(4) if bool((found[0][i] != 1).any() or (found[1][i] != 1).any())]
        assert scaled == which
        assert float(found[0][2, 3]) < 0.1


def test_precision_and_cones_decide() -> None:
    for kind, expected in (("LP", True), ("SOCP", False), ("box", False)):
        solved = draw(kind, 1)
        system, _ = adjoint_system.balanced(solved.program, solved.y, solved.s)
        assert polyhedral.applies(system) == expected
        D = system.derivative()(torch.ones_like(solved.y))
        if expected:
            assert torch.equal(D, system.free.double())
            assert np.isin(D.numpy(), [0, 1]).all()
            assert not polyhedral.applies(system._replace(w=system.w.float()))
