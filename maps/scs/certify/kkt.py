"""The referee: one error measure for us and for every peer, in the original data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maps.cones import ProductCone
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import times, transposed_times


def kkt_terms(
    program: ConeProgram, x: Tensor, y: Tensor, s: Tensor, *, homogeneous: bool = False, cones: bool = True
) -> dict[str, tuple[Tensor, Tensor]]:
    """Violation and size of each optimality condition, infinity norms.

    Args:
        program: a batch, or a single one.
        x, y, s: (B, n), (B, m), (B, m).
        homogeneous: with b = 0 and c = 0, as for certificates.
        cones: whether distances from the cones are asked for.

    Returns:
        name -> ((B,) violation, (B,) size of its largest term), for "primal" (Ax + s = b), "dual" (Px + A'y + c = 0),
        "gap" (x'Px + c'x + b'y = 0), "cone" (distance of s to K) and "dual cone" (distance of y to K*).
    """
    return {name: (_norm(v), size) for name, (v, size) in _conditions(program, x, y, s, homogeneous, cones).items()}


def _conditions(
    program: ConeProgram, x: Tensor, y: Tensor, s: Tensor, homogeneous: bool = False, cones: bool = True
) -> dict[str, tuple[Tensor, Tensor]]:
    """As `kkt_terms`, the violations (B, k) themselves."""
    A, b, c = program.A, program.b.expand(s.shape), program.c.expand(x.shape)
    if homogeneous:
        b, c = torch.zeros_like(b), torch.zeros_like(c)
    Ax, Aty = times(A, x), transposed_times(A, y)
    Px = torch.zeros_like(x) if program.P is None else times(program.P, x)
    xPx, cx, by = ((u * v).sum(1, keepdim=True) for u, v in ((x, Px), (c, x), (b, y)))
    cone: ProductCone = program.cone
    conditions: dict[str, tuple[Tensor, tuple[Tensor, ...]]] = {
        "primal": (Ax + s - b, (Ax, s, b)),
        "dual": (Px + Aty + c, (Px, Aty, c)),
        "gap": (xPx + cx + by, (xPx, cx, by)),
    }
    if cones:
        conditions["cone"] = s - cone.project(s), (s,)
        conditions["dual cone"] = y - cone.project_dual(y), (y,)
    return {
        name: (violation, torch.stack([_norm(part) for part in parts]).amax(0))
        for name, (violation, parts) in conditions.items()
    }


def kkt_error(program: ConeProgram, x: Any, y: Any, s: Any) -> Tensor:
    """The largest relative violation of the optimality conditions: violation / (1 + size of its terms).

    Args:
        program: a batch, or a single one.
        x, y, s: (B, n), (B, m), (B, m), or without the batch axis for a single program; tensors or arrays.

    Returns:
        (B,), or a scalar; inf where a number is not finite.

    Raises:
        ValueError: shapes that do not fit the program.
    """
    single = program.batch is None
    points = []
    for name, value, size in (("x", x, program.n), ("y", y, program.m), ("s", s, program.m)):
        point = torch.as_tensor(value, dtype=program.b.dtype, device=program.b.device)
        expected = (size,) if single else (program.batch, size)
        if tuple(point.shape) != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {tuple(point.shape)}")
        points.append(point[None] if single else point)
    relative = [violation / (1 + size) for violation, size in kkt_terms(program, *points).values()]
    error = torch.stack(relative).amax(0)
    error = torch.where(torch.isfinite(error), error, torch.inf)
    return error[0] if single else error


def kkt_merit(program: ConeProgram, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
    """(B,) a smooth stand-in for `kkt_error` of a batch, for training: 4-norms in place of the outer maxima.

    It is between the error and sqrt(length) times it, and has a finite derivative wherever the point is finite; inf
    where it is not.
    """
    relative = [_smooth(v) / (1 + size) for v, size in _conditions(program, x, y, s).values()]
    merit = _smooth(torch.stack(relative, dim=1))
    return torch.where(torch.isfinite(merit), merit, torch.inf)


def _smooth(t: Tensor) -> Tensor:
    """(B,) 4-norm of the rows; its derivative is 0 where they vanish."""
    largest = _norm(t.detach())[:, None]
    unit = t / torch.where(largest > 0, largest, torch.ones_like(largest))  # no overflow, no underflow
    fourth = (unit**4).sum(1)
    positive = fourth > 0
    return largest[:, 0] * torch.where(positive, torch.where(positive, fourth, torch.ones_like(fourth)) ** 0.25, 0.0)


def _norm(t: Tensor) -> Tensor:
    """(B,) infinity norm of the rows; 0 when they are empty."""
    return t.abs().amax(1) if t.shape[1] else t.sum(1)
