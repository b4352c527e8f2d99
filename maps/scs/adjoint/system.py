"""The linear system of the implicit derivative (see `adjoint`): balanced.

It is set up in units in which rows and columns of A and P (within a factor of 10), the slack and the
dual variable are of size 1; the t of
`adjoint` is the ratio of the units of the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maps.cones import ProductCone
from maps.scs.adjoint import scaling as adjoint_scaling
from maps.scs.adjoint.scaling import rows_of
from maps.scs.iteration import equilibration
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix, dense, expanded, times, transposed_times


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


def _largest(*parts: Tensor) -> Tensor:
    """(B, 1) largest size of an entry, 1 where there are only zeros or none at all."""
    entries = torch.cat(parts, 1)
    largest = torch.linalg.vector_norm(torch.cat([entries, entries.new_zeros(len(entries), 1)], 1), torch.inf, dim=1)
    return torch.where(largest > 0, largest, 1.0)[:, None]
