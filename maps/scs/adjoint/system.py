"""The linear system of the implicit derivative (see `adjoint`): balanced, solved, and judged.

It is set up in units in which rows and columns of A and P (within a factor of 10), the slack and the
dual variable are of size 1; the t of
`adjoint` is the ratio of the units of the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint.gradients.linear_solver import gmres
from maps.cones import ProductCone
from maps.scs.adjoint import polyhedral
from maps.scs.adjoint import scaling as adjoint_scaling
from maps.scs.adjoint.scaling import rows_of
from maps.scs.iteration import equilibration
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix, dense, expanded, times, transposed_times

DENSE_LIMIT = 3000
"""Largest n + m whose system is factored (then in seconds and 0.7 GB); beyond it GMRES is used, which gets far with a
quadratic objective, but stagnates on linear programs."""

SINGULAR = 1e-9
"""Singular values of at most this share of the largest count as zero (float64; 1e-4 in float32)."""

ENTRIES = 2**22
"""Most entries of the dense systems that are in memory at once (but at least one system)."""


class Units(NamedTuple):
    """What counts as 1 in each quantity."""

    rows: Tensor
    """(B or 1, m) factors of the rows of A; one for all rows of a block that a scaling would distort."""
    columns: Tensor
    """(B or 1, n) factors of the columns of A."""
    primal: Tensor
    """(B, 1) size of the slack, after scaling."""
    dual: Tensor
    """(B, 1) size of the dual variable, after scaling."""

    @property
    def x(self) -> Tensor:
        """(B, n) unit of x."""
        return self.primal * self.columns

    @property
    def s(self) -> Tensor:
        """(B, m) unit of s and of w."""
        return self.primal / self.rows

    @property
    def y(self) -> Tensor:
        """(B, m) unit of y."""
        return self.dual * self.rows


class System(NamedTuple):
    """The transposed Jacobian, in units."""

    A: Matrix
    P: Matrix | None
    weight: Tensor
    """(B, 1) of P: the units of the dual variable that a unit of the slack is."""
    w: Tensor
    """(B, m), in the cone's own units, on which D does not depend."""
    cone: ProductCone
    patterns: Mapping[str, Pattern]
    """Of "A" and, unless it is None, "P": where entries may be other than 0."""

    @property
    def free(self) -> Tensor:
        """(B, m) bool: the diagonal of D, of a cone whose D has entries 0 and 1 there and nothing else."""
        return (self.w > 0) & (torch.arange(self.w.shape[1], device=self.w.device) >= self.cone.equalities)

    def derivative(self) -> Callable[[Tensor], Tensor]:
        """The product with D, (B, m) -> (B, m)."""
        if set(self.cone.spec) <= {"z", "l"}:
            free = self.free
            return lambda v: torch.where(free, v, 0.0)
        pull = torch.func.vjp(self.cone.project, self.w)[1]
        return lambda v: pull(v)[0]

    def operator(self) -> Callable[[Tensor], Tensor]:
        """The product with the whole, (B, n + m) -> (B, n + m), without forming it."""
        D, A = self.derivative(), expanded(self.A, len(self.w))
        P = None if self.P is None else expanded(self.P, len(self.w))

        def product(z: Tensor) -> Tensor:
            p, q = z.split([A.shape[2], A.shape[1]], 1)
            top, Ap = transposed_times(A, q), times(A, p)
            return torch.cat([top if P is None else top + self.weight * times(P, p), D(Ap + q) - Ap], 1)

        return product

    def rows(self, index: Tensor) -> System:
        """The systems of the instances in `index`."""
        P = None if self.P is None else rows_of(self.P, index)
        return System(rows_of(self.A, index), P, self.weight[index], self.w[index], self.cone, self.patterns)

    def matrix(self) -> Tensor:
        """(B, n + m, n + m) the whole, dense."""
        batch, m = self.w.shape
        A = dense(self.A).expand(batch, m, -1)
        n = A.shape[2]
        P = A.new_zeros(batch, n, n) if self.P is None else self.weight[:, :, None] * dense(self.P)
        if m == 0:
            return P
        identity = torch.eye(m, dtype=A.dtype, device=A.device)
        D = torch.func.vmap(self.derivative())(identity[:, None].expand(m, batch, m)).movedim(0, 1)
        return torch.cat([torch.cat([P, A.mT], 2), torch.cat([(D - identity) @ A, D], 2)], 1)


ROUNDING = 1e-6
"""Of the curvature's unit: dual variables below it may be rounding, at the tolerances that programs are solved to."""


def balanced(program: ConeProgram, y: Tensor, s: Tensor) -> tuple[System, Units]:
    """The system at a solution, and its units.

    Args:
        program: a batch, or a single program.
        y, s: (B, m) of the solutions.
    """
    data = equilibration.Data(program.A, program.P, program.b.expand(s.shape), program.c.expand(len(s), -1))
    found = adjoint_scaling.diagonals(program, data)
    rows, columns = (data.b.new_ones(1, k) for k in (program.m, program.n)) if found is None else found
    if found is not None:
        data = equilibration.apply(data, equilibration.Scaling(rows, columns, torch.ones_like(data.c[:, :1])))
    primal, dual = _largest(rows * s, data.b), _largest(y / rows, data.c)
    if data.P is not None:
        entries = data.P.values if isinstance(data.P, SparseMatrix) else data.P.flatten(-2)
        curved = _largest(entries if entries.ndim == 2 else entries[None]) * primal
        # c = 0 and a y of rounding size are no unit: then it is the curvature that says what is large
        dual = torch.where(dual > ROUNDING * curved, dual, curved)
    units = Units(rows, columns, primal=primal, dual=dual)
    w = s - y * (units.s / units.y)
    return System(data.A, data.P, units.primal / units.dual, w, program.cone, program.patterns), units


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


def _largest(*parts: Tensor) -> Tensor:
    """(B, 1) largest size of an entry, 1 where there are only zeros or none at all."""
    entries = torch.cat(parts, 1)
    largest = torch.linalg.vector_norm(torch.cat([entries, entries.new_zeros(len(entries), 1)], 1), torch.inf, dim=1)
    return torch.where(largest > 0, largest, 1.0)[:, None]
