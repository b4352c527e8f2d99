"""The implicit derivative of cone programs: right where it exists, reported where it does not."""

from __future__ import annotations

from typing import Any

import diffcp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from maps.scs import ConeProgram, kkt_error, solve
from maps.scs.adjoint import solve as adjoint_solve
from maps.scs.adjoint.vjp import ProgramGradient, vjp
from tests.maps.scs.solved_programs import KINDS, Solved, cotangents, draw, normal, slopes, times

LEAVES = ("A", "b", "c", "P")


def dot(u: Tensor, v: Tensor) -> Tensor:
    """(B,)"""
    return (u * v).flatten(1).sum(1)


def norm(u: Tensor) -> Tensor:
    """(B,)"""
    return u.flatten(1).norm(dim=1)


def leaves(solved: Solved) -> list[str]:
    return [name for name in LEAVES if getattr(solved.program, name) is not None]


def trusted(gradient: ProgramGradient) -> bool:
    return (
        bool((gradient.residual < 1e-10).all() and (gradient.kkt_error < 1e-10).all()) and not gradient.degenerate.any()
    )


def assert_close(one: ProgramGradient, two: ProgramGradient, tolerance: float) -> None:
    for name in LEAVES:
        u, v = getattr(one, name), getattr(two, name)
        assert (u is None) == (v is None)
        if u is not None:
            assert u.shape == v.shape
            assert (norm(u - v) <= tolerance * norm(v)).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_central_differences(kind: str) -> None:
    solved = draw(kind, 15)
    d = cotangents(solved)
    gradient = vjp(solved.program, *solved.points, *d)
    assert trusted(gradient)
    for name in leaves(solved):
        g = getattr(gradient, name)
        direction = normal(torch.Generator().manual_seed(1), *g.shape)
        if name == "P":
            assert torch.equal(g, g.mT)
            direction = direction + direction.mT
        expected = slopes(solved, name, direction, d)
        assert (norm(g) > 1e-3).all(), "a zero gradient must not pass"
        typical = norm(g) * norm(direction) / direction[0].numel() ** 0.5
        assert ((dot(g, direction) - expected).abs() <= 1e-5 * typical).all(), name


@pytest.mark.parametrize("name", LEAVES)
def test_every_entry(name: str) -> None:
    """One entry at a time, of P a symmetric pair: a pair counts both of its entries."""
    one = draw("dual exponential", 1)
    shape = getattr(one.program, name).shape[1:]
    places = [place for place in np.ndindex(*shape) if name != "P" or place[0] <= place[1]]
    many = Solved(*(repeated(part, len(places)) for part in one))
    d = cotangents(many)
    direction = torch.zeros(len(places), *shape, dtype=torch.float64)
    for row, place in enumerate(places):
        direction[row, *place] = 1
        if name == "P":
            direction[row, *place[::-1]] = 1
    g = getattr(vjp(many.program, *many.points, *d), name)
    expected = slopes(many, name, direction, d)
    assert torch.allclose(dot(g, direction), expected, rtol=1e-5, atol=1e-6 * float(g.abs().max()))
    if name == "P":
        for row, (i, j) in enumerate(places):
            assert i == j or dot(g, direction)[row] == g[row, i, j] + g[row, j, i]


def repeated(part: Any, count: int) -> Any:
    if isinstance(part, Tensor):
        return part.expand(count, *part.shape[1:])
    return ConeProgram(*(repeated(getattr(part, name), count) for name in LEAVES), cones=part.cones)


@pytest.mark.parametrize("kind", ["LP", "SOCP", "SDP", "exponential"])
def test_against_diffcp(kind: str) -> None:
    """The other implementation there is, at its own solutions; 100 programs in all."""
    solved = draw(kind, 25, worst=1e5, accept=far_from_flat if kind == "exponential" else None)
    program, d = solved.program, cotangents(solved)
    gradient = vjp(program, *solved.points, *d)
    options = {"eps_abs": 1e-11, "eps_rel": 1e-11, "max_iters": 100_000, "mode": "dense", "solve_method": "SCS"}
    for i in range(25):
        A, b, c = sparse.csc_matrix(program.A[i].numpy()), program.b[i].numpy(), program.c[i].numpy()
        *_, pull = diffcp.solve_and_derivative(A, b, c, program.cones, **options)
        dA, db, dc = pull(*(t[i].numpy() for t in d))
        for ours, theirs in ((gradient.A[i], dA.toarray()), (gradient.b[i], db), (gradient.c[i], dc)):
            assert np.linalg.norm(ours.numpy() - theirs) <= 1e-5 * np.linalg.norm(theirs), i


def far_from_flat(w: Tensor, s: Tensor) -> Tensor:
    """(B,) whether no exponential cone is near its flat face, where diffcp's derivative is wrong (up to 85 times)."""
    first, second = (t[:, 5:].unflatten(1, (3, 3)) for t in (w, s))
    return ~((second[:, :, 1] < 1e-2) & (first[:, :, 0] > 0)).any(1)


@pytest.mark.parametrize("kind", ["QP", "SOCP", "mixed"])
def test_at_the_point_a_solver_finds(kind: str) -> None:
    solved = draw(kind, 2, worst=1e3)
    options: Any = {"eps_abs": 1e-11, "eps_rel": 1e-11, "max_evaluations": 20_000, "scale": 1.0}
    found = solve(solved.program, **options)
    d = cotangents(solved)
    gradient = vjp(solved.program, found.x, found.y, found.s, *d)
    assert not gradient.degenerate.any()
    assert torch.equal(gradient.kkt_error, kkt_error(solved.program, found.x, found.y, found.s))
    assert_close(gradient, vjp(solved.program, *solved.points, *d), 1e-6)


@pytest.mark.parametrize("kind", ["QP", "mixed"])
def test_through_a_solve(kind: str) -> None:
    """What autograd gets from `gradient="implicit"`."""
    solved = draw(kind, 2, worst=1e3)
    parts = [getattr(solved.program, name).clone().requires_grad_() for name in LEAVES]
    options: Any = {"eps_abs": 1e-11, "eps_rel": 1e-11, "max_evaluations": 20_000, "scale": 1.0}
    found = solve(ConeProgram(*parts, solved.program.cones), gradient="implicit", **options)
    d = cotangents(solved)
    total = sum((u * v).sum() for u, v in zip(d, (found.x, found.y, found.s), strict=True))
    A, b, c, P = torch.autograd.grad(total, parts)
    exact = vjp(solved.program, *solved.points, *d)
    assert_close(exact._replace(A=A, b=b, c=c, P=(P + P.mT) / 2), exact, 1e-6)


@given(st.sampled_from(list(KINDS)), st.integers(0, 10_000))
@settings(max_examples=20)
def test_scaling_laws(kind: str, seed: int) -> None:
    """How solutions scale with the data, differentiated: no reference, no step size."""
    solved = draw(kind, 2, seed)
    d = cotangents(solved, seed)
    g = vjp(solved.program, *solved.points, *d)
    of_x, of_y, of_s = (dot(u, v) for u, v in zip(d, solved.points, strict=True))
    size = sum(norm(getattr(g, name)) * norm(getattr(solved.program, name)) for name in leaves(solved))
    by = {name: dot(getattr(g, name), getattr(solved.program, name)) for name in leaves(solved)}
    by.setdefault("P", torch.zeros(()))
    for total, expected in (
        (by["b"] + by["c"], of_x + of_y + of_s),  # all three are proportional to (b, c)
        (by["c"] + by["P"], of_y),  # the dual is proportional to the objective
        (by["A"] + by["b"], of_s - of_y),  # the slack is proportional to (A, b), the dual inversely
    ):
        assert ((total - expected).abs() <= 1e-10 * (1 + size)).all()


@pytest.mark.parametrize("kind", ["LP", "QP", "SOCP", "SDP", "exponential", "mixed"])
def test_badly_scaled_data(kind: str) -> None:
    """Rows and columns scaled by 1e-4 to 1e4, both sides by 1e-6 to 1e6, give the same gradient, scaled."""
    solved = draw(kind, 10, worst=1e5)
    program, (x, y, s), d = solved.program, solved.points, cotangents(solved)
    generator = torch.Generator().manual_seed(2)
    rows, columns, primal, dual = (
        10 ** (decades * (2 * torch.rand(10, size, generator=generator, dtype=torch.float64) - 1))
        for size, decades in ((program.m, 4), (program.n, 4), (1, 6), (1, 6))
    )
    rows = program.cone.share_within_blocks(rows, "max", box=True)
    curvature = (dual / primal)[:, :, None] * columns[:, :, None] * columns[:, None, :]
    P = None if program.P is None else curvature * program.P
    A = rows[:, :, None] * program.A * columns[:, None, :]
    b, c = primal * rows * program.b, dual * columns * program.c
    scaled = ConeProgram(A, b, c, P, program.cones)
    units = primal / columns, dual / rows, primal * rows  # of x, y and s
    x, y, s = (unit * t for unit, t in zip(units, (x, y, s), strict=True))
    dx, dy, ds = (t / unit for unit, t in zip(units, d, strict=True))
    got = vjp(scaled, x, y, s, dx, dy, ds)
    assert not got.degenerate.any()
    assert (got.residual < 1e-8).all()
    back = got._replace(
        A=got.A * rows[:, :, None] * columns[:, None, :],
        b=got.b * primal * rows,
        c=got.c * dual * columns,
        P=None if got.P is None else got.P * curvature,
    )
    assert_close(back, vjp(program, *solved.points, *d), 1e-7)


def test_what_a_batch_shares_gets_the_sum() -> None:
    """And what is sparse the entries that are stored."""
    many = Solved(*(repeated(part, 3) for part in without_entries(draw("mixed", 1))))
    d = cotangents(many)
    apart = vjp(many.program, *many.points, *d)
    A, b, c, P = (getattr(many.program, name)[0] for name in LEAVES)
    dense = vjp(ConeProgram(A, b, c, P, many.program.cones), *many.points, *d)
    stored = vjp(ConeProgram(*map(sparse_or_same, (A, b, c, P)), many.program.cones), *many.points, *d)
    for name in LEAVES:
        total = getattr(apart, name).sum(0)
        assert torch.allclose(getattr(dense, name), total, rtol=1e-9, atol=1e-9)
        if name in "AP":
            total = torch.where(getattr(many.program, name)[0] != 0, total, 0)
        g = getattr(stored, name)
        assert torch.allclose(g.to_dense() if name in "AP" else g, total, rtol=1e-9, atol=1e-9)


def without_entries(solved: Solved) -> Solved:
    """The same solution of programs with a sparse A."""
    (x, y, s), program = solved.points, solved.program
    A = torch.where(torch.arange(program.n) % 3 == torch.arange(program.m)[:, None] % 5, 0.0, program.A)
    b, c = times(A, x) + s, -times(A.mT, y) - times(program.P, x)
    return Solved(ConeProgram(A, b, c, program.P, program.cones), x, y, s)


def sparse_or_same(leaf: Tensor) -> Any:
    return sparse.csc_matrix(leaf.numpy()) if leaf.ndim == 2 else leaf


@pytest.mark.parametrize("kind", ["QP", "SDP", "mixed"])
def test_without_a_factorization(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solved = draw(kind, 5)
    d = cotangents(solved)
    factored = vjp(solved.program, *solved.points, *d)
    monkeypatch.setattr(adjoint_solve, "DENSE_LIMIT", 0)
    iterated = vjp(solved.program, *solved.points, *d)
    assert (iterated.residual < 1e-9).all()
    assert_close(iterated, factored, 1e-6)


def test_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into memory at once."""
    solved = draw("QP", 7)
    d = cotangents(solved)
    whole = vjp(solved.program, *solved.points, *d)
    monkeypatch.setattr(adjoint_solve, "ENTRIES", 3 * (solved.program.n + solved.program.m) ** 2)
    assert_close(vjp(solved.program, *solved.points, *d), whole, 1e-9)


def test_no_rows() -> None:
    """An unconstrained quadratic: x = -c / P."""
    P, c, x, empty = (
        torch.tensor([[2.0, 0], [0, 4]]),
        torch.tensor([-2.0, 4]),
        torch.tensor([[1.0, -1]]),
        torch.zeros(1, 0),
    )
    program = ConeProgram(torch.zeros(0, 2), torch.zeros(0), c, P, {})
    gradient = vjp(program, x, empty, empty, torch.ones(1, 2), empty, empty)
    assert torch.allclose(gradient.c, torch.tensor([-0.5, -0.25]))
    assert torch.allclose(gradient.P, torch.tensor([[-0.5, 0.125], [0.125, 0.25]]))


def test_float32() -> None:
    solved = draw("QP", 3, 1, worst=1e3)
    d = cotangents(solved)
    exact = vjp(solved.program, *solved.points, *d)
    A, b, c, P = (getattr(solved.program, name).float() for name in LEAVES)
    single = vjp(ConeProgram(A, b, c, P, solved.program.cones), *(t.float() for t in (*solved.points, *d)))
    assert not single.degenerate.any()
    for name in LEAVES:
        assert getattr(single, name).dtype == torch.float32
        assert (norm(getattr(single, name) - getattr(exact, name)) <= 1e-3 * norm(getattr(exact, name))).all()


def test_shapes_that_do_not_fit() -> None:
    solved = draw("QP", 2)
    d = cotangents(solved)
    with pytest.raises(ValueError, match=r"y: expected shape \(2, 26\), got \(2, 25\)"):
        vjp(solved.program, solved.x, solved.y[:, 1:], solved.s, *d)
    with pytest.raises(ValueError, match=r"dx: expected shape \(2, 20\), got \(20,\)"):
        vjp(solved.program, *solved.points, d[0][0], *d[1:])
