"""Random cone programs with a known solution that moves smoothly with the data, and where it moves to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maps.cones import ProductCone
from maps.scs import ConeProgram

KINDS: dict[str, tuple[dict[str, Any], int, int]] = {
    "LP": ({"z": 3, "l": 14}, 10, 0),
    "QP": ({"z": 6, "l": 20}, 20, 10),
    "SOCP": ({"z": 4, "l": 8, "q": [3, 1, 5, 5, 7]}, 12, 0),
    "SDP": ({"z": 2, "l": 3, "s": [3, 1, 4]}, 8, 0),
    "exponential": ({"z": 2, "l": 3, "ep": 3}, 8, 0),
    "dual exponential": ({"z": 2, "l": 3, "ed": 2, "q": [4]}, 8, 3),
    "power": ({"z": 2, "l": 3, "p": [0.3, -0.6, 0.5]}, 8, 0),
    "box": ({"z": 2, "l": 3, "bu": [1, 2, 0.5, 1, 3], "bl": [-1, 0.5, -1, -2, -4]}, 7, 0),
    "mixed": ({"z": 2, "l": 4, "bu": [1, 2], "bl": [-1, 0.5], "q": [3, 4], "s": [3], "ep": 1, "p": [0.4, -0.2]}, 14, 6),
}
"""Cones, number of variables, rank of P (0 for none)."""


class Solved(NamedTuple):
    """A batch of programs, and its solutions."""

    program: ConeProgram
    x: Tensor
    y: Tensor
    s: Tensor

    @property
    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, self.y, self.s


def draw(
    kind: str,
    count: int,
    seed: int = 0,
    *,
    worst: float = 1e5,
    accept: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Solved:
    """Programs made from their solutions: s and -y are the parts of a random w in K and in its polar cone.

    A solution that is not unique, or hardly (condition above `worst`), is drawn again: 4 in 5 LPs (the number of active
    rows must equal that of the variables), every second of most kinds. So is one that `accept` refuses, from (w, s).
    """
    cones, n, rank = KINDS[kind]
    cone = ProductCone(cones)
    generator = torch.Generator().manual_seed(seed)
    kept: list[Solved] = []
    while sum(len(solved.x) for solved in kept) < count:
        A, w, x = (normal(generator, 4 * count, *shape) for shape in ((cone.dim, n), (cone.dim,), (n,)))
        G = normal(generator, 4 * count, n, rank)
        P = G @ G.mT if rank else None
        s = cone.project(w)
        c = -times(A.mT, s - w) - (0 if P is None else times(P, x))
        b = times(A, x) + s
        J = _jacobian(_conditions({"A": A, "b": b, "c": c, "P": P}, cone), torch.cat([x, w], 1))
        good = torch.from_numpy(np.linalg.cond(J) < worst)
        good = torch.nonzero(good if accept is None else good & accept(w, s)).flatten()
        program = ConeProgram(A[good], b[good], c[good], None if P is None else P[good], cones)
        kept.append(Solved(program, x[good], (s - w)[good], s[good]))
    return joined(kept, count)


def joined(parts: list[Solved], count: int) -> Solved:
    """The first `count` instances of all."""

    def cat(*tensors: Tensor) -> Tensor:
        return torch.cat(tensors)[:count]

    programs = [solved.program for solved in parts]
    A, b, c = (cat(*(getattr(program, name) for program in programs)) for name in "Abc")
    P = None if programs[0].P is None else cat(*(program.P for program in programs))
    points = (cat(*column) for column in zip(*(solved.points for solved in parts), strict=True))
    return Solved(ConeProgram(A, b, c, P, programs[0].cones), *points)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[:, :, None])[:, :, 0]


def moved(solved: Solved, leaf: str, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The solutions once `change` is added to a leaf: Newton's method on the optimality conditions."""
    program, n = solved.program, solved.program.n
    data = {name: getattr(program, name) for name in ("A", "b", "c", "P")}
    conditions = _conditions(data | {leaf: data[leaf] + change}, program.cone)
    z = torch.cat([solved.x, solved.s - solved.y], 1)
    for _ in range(5):
        z = z - torch.from_numpy(np.linalg.solve(_jacobian(conditions, z), conditions(z)[:, :, None].numpy()))[:, :, 0]
    assert conditions(z).abs().max() < 1e-10
    s = program.cone.project(z[:, n:])
    return z[:, :n], s - z[:, n:], s


def cotangents(solved: Solved, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(normal(generator, *point.shape) for point in solved.points)


def slopes(solved: Solved, leaf: str, direction: Tensor, cotangents: tuple[Tensor, ...]) -> Tensor:
    """(B,) how <cotangents, solution> changes with a leaf along a direction: central differences.

    The steps move the solutions by 1e-5, however sensitive they are.
    """

    def at(step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return moved(solved, leaf, step.reshape(-1, *[1] * (direction.ndim - 1)) * direction)

    tiny = torch.full_like(solved.x[:, 0], 1e-8)
    speed = sum(((u - v) ** 2).sum(1) for u, v in zip(at(tiny), solved.points, strict=True)).sqrt() / tiny
    step = 1e-5 / (1 + speed)
    up, down = at(step), at(-step)
    return sum(((u - v) * d).sum(1) for u, v, d in zip(up, down, cotangents, strict=True)) / (2 * step)


def _conditions(data: dict[str, Any], cone: ProductCone) -> Callable[[Tensor], Tensor]:
    """(x, w) -> (Px + A'y + c, Ax + s - b), with s - y = w."""
    n = data["c"].shape[1]

    def conditions(z: Tensor) -> Tensor:
        x, w = z[:, :n], z[:, n:]
        s = cone.project(w)
        dual = times(data["A"].mT, s - w) + data["c"]
        if data["P"] is not None:
            dual = dual + times(data["P"], x)
        return torch.cat([dual, times(data["A"], x) + s - data["b"]], 1)

    return conditions


def _jacobian(function: Callable[[Tensor], Tensor], z: Tensor) -> np.ndarray:
    """(B, N, N), of a function of independent rows."""
    pull = torch.func.vjp(function, z)[1]
    unit = torch.eye(z.shape[1], dtype=z.dtype)[:, None].expand(-1, *z.shape)
    return torch.func.vmap(lambda row: pull(row)[0])(unit).movedim(0, 1).numpy()
