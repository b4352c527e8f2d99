"""What the implicit derivative of cone programs reports of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maps.scs import ConeProgram, kkt_error
from maps.scs.adjoint import solve as adjoint_solve
from maps.scs.adjoint.vjp import vjp
from tests.maps.scs.solved_programs import Solved, cotangents, draw

LEAVES = ("A", "b", "c", "P")


def tensor(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def nearest(spec: dict[str, Any], a: Tensor) -> Solved:
    """Minimize |x - a|^2 / 2 over x in K: the projection itself as a program."""
    k = a.shape[1]
    identity = torch.eye(k, dtype=a.dtype)
    program = ConeProgram(-identity, torch.zeros(k, dtype=a.dtype), -a, identity, spec)
    s = program.cone.project(a)
    return Solved(program, s, s - a, s)


KINKS: dict[str, tuple[dict[str, Any], list[list[float]]]] = {
    "nonnegative": ({"l": 3}, [[0, 1, -1], [1e-9, 1, -1], [0, 0, 0]]),
    "box": ({"bu": [1.0, 2.0], "bl": [-1.0, 0.0]}, [[1, 1, 1], [0, 0, 0], [2, 0.5, 0]]),
    "second-order": ({"q": [3]}, [[0, 0, 0], [5, 3, 4], [-5, 3, 4]]),
    "psd": ({"s": [2]}, [[0, 0, 0], [1, 0, 0], [0, 0, -1], [1, 2**0.5, 1]]),
    "exponential": ({"ep": 1}, [[0, 0, 0], [0, 1, 1], [-1, 0, 1], [-1, 1, 0.36787944117144233]]),
    "power": ({"p": [0.5]}, [[0, 0, 0], [1, 1, 1], [4, 1, -2]]),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_flagged(name: str) -> None:
    """Where s and y vanish together, or one is on the boundary and the other vanishes; but not a bit beside."""
    spec, places = KINKS[name]
    solved = nearest(spec, tensor(*places))
    d = cotangents(solved)
    gradient = vjp(solved.program, *solved.points, *d)
    assert gradient.degenerate.all()
    assert torch.isfinite(gradient.A).all()
    assert (gradient.residual < 1e-12).all(), "the system itself is regular"
    beside = nearest(spec, tensor(*places) + 1e-2 * tensor([0.7, -0.4, 0.5]))
    assert not vjp(beside.program, *beside.points, *d).degenerate.any()


def test_a_kink_along_one_of_the_directions() -> None:
    """That are tried: the others find it."""
    for k in range(4):
        first, *rest = adjoint_solve._irregular(torch.zeros(3, dtype=torch.float64), k)
        r = torch.stack(rest)
        along = first * r / r.dot(r)  # and across: a unit vector v with r'v = first
        across = torch.stack([-r[1], r[0]]) / r.norm() * (1 - along.dot(along)).sqrt()
        solved = nearest({"q": [3]}, torch.cat([torch.ones(1), along + across])[None])
        assert vjp(solved.program, *solved.points, *cotangents(solved)).degenerate.all()


def test_a_face_of_solutions_is_flagged() -> None:
    """Minimize x1 + x2 over x1 + x2 >= 1, x >= 0: inside it the system is singular, at its ends there are kinks."""
    A, b, c = tensor([-1, -1], [-1, 0], [0, -1]), tensor(-1, 0, 0), tensor(1, 1)
    x = tensor([0.3, 0.7], [1, 0], [0.3, 0.7])
    y, s = tensor([1, 0, 0]).expand(3, -1), b - x @ A.mT
    none = torch.zeros_like(y)
    gradient = vjp(
        ConeProgram(A, b.expand(3, -1), c, cones={"l": 3}), x, y, s, tensor([1, 2], [1, 2], [1, 1]), none, none
    )
    assert gradient.degenerate.all()
    assert torch.isfinite(gradient.b).all()
    assert gradient.residual[0] > 0.1, "x1 + 2 x2 differs from solution to solution"
    assert gradient.residual[2] < 1e-12, "x1 + x2 does not"
    assert torch.allclose(gradient.b[2], tensor(-1, 0, 0))


def test_a_vertex_is_not() -> None:
    """Minimize x1 + 2 x2 over x1 + x2 >= 1, x >= 0: x = (1, 0) moves with b but not with c; y the other way."""
    A, b, c = tensor([-1, -1], [-1, 0], [0, -1]), tensor(-1, 0, 0), tensor(1, 2)
    x, y = tensor([1, 0]), tensor([1, 0, 1])
    s, none = b - x @ A.mT, torch.zeros_like(y)
    program = ConeProgram(A, b, c, cones={"l": 3})
    of_x = vjp(program, x, y, s, tensor([3, 5]), none, none)
    assert not of_x.degenerate.any()
    assert torch.allclose(of_x.c, tensor(0, 0), atol=1e-12)
    assert torch.allclose(of_x.b, tensor(-3, 0, 3 - 5), atol=1e-12)
    of_y = vjp(program, x, y, s, 0 * x, tensor([3, 7, 5]), none)
    assert not of_y.degenerate.any()
    assert torch.allclose(of_y.c, tensor(3 - 5, 5), atol=1e-12)
    assert torch.allclose(of_y.b, tensor(0, 0, 0), atol=1e-12)
    of_s = vjp(program, x, y, s, 0 * x, none, tensor([1, 0, 0]))  # an active row's slack stays 0
    assert not of_s.degenerate.any()
    assert of_s.residual == 0
    assert (of_s.b == 0).all()
    assert (of_s.c == 0).all()


def test_a_repeated_equation_is_flagged_and_its_gradient_shared() -> None:
    """Minimize |x|^2 / 2 over x1 + x2 = 2, twice: right for changes of b that leave it solvable."""
    A, b = tensor([1, 1], [1, 1]), tensor(2, 2)
    x, y, s = tensor([1, 1]), tensor([-0.5, -0.5]), tensor([0, 0])
    program = ConeProgram(A, b, tensor(0, 0), torch.eye(2, dtype=torch.float64), {"z": 2})
    gradient = vjp(program, x, y, s, tensor([1, 3]), 0 * y, 0 * s)
    assert gradient.degenerate.all()
    assert gradient.residual < 1e-12
    assert torch.allclose(gradient.b, tensor(1, 1)), "x = (b / 2, b / 2): 2 in all, for the least norm in equal parts"
    assert torch.allclose(gradient.c, tensor(1, -1))


@pytest.mark.parametrize("limit", [3000, 0])
def test_a_cotangent_of_zero(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a gradient of zero, even where there is no derivative, the system is singular, or a number is not finite."""
    monkeypatch.setattr(adjoint_solve, "DENSE_LIMIT", limit)
    solved = nearest({"q": [3]}, tensor([0, 0, 0], [3, 1, 0], [0, 1, 0], [0, 1, torch.nan]))
    A, P = (getattr(solved.program, name).repeat(4, 1, 1) for name in ("A", "P"))
    A[2], P[2], A[3] = 0, 0, torch.nan
    program = ConeProgram(A, solved.program.b, solved.program.c, P, {"q": [3]})
    zero = torch.zeros_like(solved.x)
    gradient = vjp(program, *solved.points, zero, zero, zero)
    assert not gradient.degenerate.any()
    assert (gradient.residual == 0).all()
    for name in LEAVES:
        assert (getattr(gradient, name) == 0).all()


@pytest.mark.parametrize("place", ["A", "b", "P", "x", "dy"])
def test_an_instance_that_is_not_finite_spoils_no_other(place: str) -> None:
    solved = draw("mixed", 4)
    d = cotangents(solved)
    clean = vjp(solved.program, *solved.points, *d)
    parts = {name: getattr(solved.program, name) for name in LEAVES}
    parts |= dict(zip(("x", "y", "s", "dx", "dy", "ds"), (*solved.points, *d), strict=True))
    spoiled = parts[place].clone()
    spoiled[2] = torch.where(torch.arange(spoiled[2].numel()).reshape(spoiled[2].shape) == 1, torch.nan, spoiled[2])
    A, b, c, P, *points = (parts | {place: spoiled}).values()
    got = vjp(ConeProgram(A, b, c, P, solved.program.cones), *points)
    assert got.degenerate.tolist() == [False, False, True, False]
    assert got.kkt_error[2] == torch.inf
    assert torch.isnan(got.residual[2])
    others = torch.tensor([0, 1, 3])
    for name in LEAVES:
        assert torch.isnan(getattr(got, name)[2]).all()
        assert torch.allclose(getattr(got, name)[others], getattr(clean, name)[others], rtol=1e-9, atol=1e-12)


def test_a_point_that_is_no_solution_is_reported() -> None:
    solved = draw("SOCP", 3)
    x = solved.x + tensor([0], [1e-6], [1e-2])
    gradient = vjp(solved.program, x, solved.y, solved.s, *cotangents(solved))
    assert torch.equal(gradient.kkt_error, kkt_error(solved.program, x, solved.y, solved.s))
    assert (gradient.kkt_error < tensor(1e-12, 1e-4, 1)).all()
    assert (gradient.kkt_error[1:] > tensor(1e-8, 1e-4)).all()
