"""The linear system of the implicit derivative (see `system`): solved, and judged."""

from __future__ import annotations

import torch
from torch import Tensor

from fixedpoint.gradients.linear_solver import gmres
from maps.scs.adjoint import polyhedral
from maps.scs.adjoint.system import System, Units
from maps.scs.problem.sparse_matrix import times

DENSE_LIMIT = 3000
"""Largest n + m whose system is factored (then in seconds and 0.7 GB); beyond it GMRES is used, which gets far with a
quadratic objective, but stagnates on linear programs."""

SINGULAR = 1e-9
"""Singular values of at most this share of the largest count as zero (float64; 1e-4 in float32)."""

ENTRIES = 2**22
"""Most entries of the dense systems that are in memory at once (but at least one system)."""


def solve(system: System, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n + m) solutions, and (B,) bool whether the system is singular; factored, or by GMRES beyond `DENSE_LIMIT`.

    A singular system gets its least-squares solution of least norm; among those given to GMRES none is called
    singular. A right-hand side of 0 is solved by 0, and its system not looked at.
    """
    size = rhs.shape[1]
    if size > DENSE_LIMIT:
        z = gmres(system.operator(), rhs, rtol=1e-12 if rhs.dtype == torch.float64 else 1e-6).x
        return z, torch.zeros_like(z[:, 0], dtype=torch.bool)
    indices = torch.arange(len(rhs), device=rhs.device).split(max(1, ENTRIES // size**2))
    if len(indices) == 1:
        return _solved(system, rhs)
    parts = [_solved(system.rows(index), rhs[index]) for index in indices]
    return torch.cat([z for z, _ in parts]), torch.cat([singular for _, singular in parts])


def _solved(system: System, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """As `solve`, of what fits into memory: the fast way, and for those that it cannot vouch for by QR."""
    if not polyhedral.applies(system):
        return _factored(system.matrix(), rhs)
    z, good = polyhedral.solve(system, rhs)
    z = torch.where((rhs != 0).any(1, keepdim=True), z, 0.0)
    index = torch.nonzero(~good & (rhs != 0).any(1)).flatten()
    singular = torch.zeros_like(good)
    if len(index) == 0:
        return z, singular
    exact, flat = _factored(system.rows(index).matrix(), rhs[index])
    return z.index_copy(0, index, exact), singular.index_copy(0, index, flat)


def _factored(matrix: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """As `solve`: QR with a step of refinement, singular values where the triangle looks singular."""
    orthogonal, triangle = torch.linalg.qr(matrix)

    def once(v: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(triangle, times(orthogonal.mT, v)[:, :, None], upper=True)[:, :, 0]

    active = (rhs != 0).any(1)
    z = once(rhs)
    z = torch.where(active[:, None], z + once(rhs - times(matrix, z)), 0.0)
    limit = SINGULAR if rhs.dtype == torch.float64 else 1e-4
    largest = torch.linalg.vector_norm(triangle, dim=1).amax(1)
    suspicious = active & ~(_smallest(triangle) > 10 * limit * largest)  # rough, and NaN where the triangle is singular
    index = torch.nonzero(suspicious).flatten()
    if len(index) == 0:
        return z, suspicious
    u, values, vh = torch.linalg.svd(matrix[index])
    kept = values > limit * values[:, :1]
    parts = torch.where(kept, times(u.mT, rhs[index]) / torch.where(kept, values, 1.0), 0.0)
    return z.index_copy(0, index, times(vh.mT, parts)), suspicious.index_copy(0, index, ~kept.all(1))


def _smallest(triangle: Tensor) -> Tensor:
    """(B,) the smallest singular value, from above, by inverse iteration; 0 or NaN where the triangle is singular."""
    v = _irregular(triangle[0], 0)[None, :, None].expand(len(triangle), -1, 1)
    for _ in range(4):
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
        half = torch.linalg.solve_triangular(triangle.mT, v, upper=False)
        v = torch.linalg.solve_triangular(triangle, half, upper=True)
    return 1 / torch.linalg.vector_norm(half, dim=1)[:, 0]


def at_kink(system: System, units: Units, error: Tensor) -> Tensor:
    """(B,) bool: whether w is at a kink of the projection, or as close to one as its relative error (B,), up to 1e-6.

    At a kink the second difference over a step is as large as the step; where the projection is smooth, as the step's
    square.
    """
    least = torch.finfo(error.dtype).eps ** 0.45  # 1e-7: shorter steps drown in round-off
    step = units.s * error.clamp(least, 10 * least)[:, None]
    project, w = system.cone.project, system.w
    here, found = project(w), torch.zeros_like(error, dtype=torch.bool)
    for k in range(4):  # one direction may run along a kink; not four irregular ones
        away = step * _irregular(w, k)
        bend = (project(w + away) + project(w - away) - 2 * here) / step
        found = found | (torch.linalg.vector_norm(bend, dim=1) > 0.25)
    return found


def _irregular(like: Tensor, k: int) -> Tensor:
    """The k-th of some fixed vectors as long as the last axis; entries between 1/2 and 1 in size, signs irregular."""
    index = torch.arange(1, like.shape[-1] + 1, dtype=like.dtype, device=like.device)
    wave = torch.cos(index**2 * (1 + 0.37 * k) + k)
    return torch.where(wave < 0, -0.5, 0.5) + wave / 2
