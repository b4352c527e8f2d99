"""Conjugate gradients on the reduced system H p = r, H = P + rho_x I + A' R_y^{-1} A: nothing is factored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maps.scs.linear_systems.base import KktMatrix, LinearSolver, LinearSystem
from maps.scs.linear_systems.kkt import apply
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix, times, transposed_times

TOLERANCE = 1e-13
"""Residual, relative to the right-hand side, at which an instance stops (1e-6 in float32); the refinement that follows
squares what is missing."""


class ConjugateGradients(NamedTuple):
    """The matrices themselves."""

    A: SparseMatrix
    P: SparseMatrix | None
    R_y: Tensor
    """(B, m), or (m,) when shared."""
    rho_x: float

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m), refined once."""
        (m, n), batch = self.A.pattern.shape, right.shape[0]
        top, bottom = right.split([n, m], 1)
        A = self.A.values.expand(batch, -1)
        P = top.new_zeros(batch, 0) if self.P is None else self.P.values.expand(batch, -1)
        constants = A, P, self.R_y.expand(batch, -1)
        operator = partial(_solve, self.A.pattern, None if self.P is None else self.P.pattern, self.rho_x)
        reduced = top + transposed_times(self.A, bottom / self.R_y)
        p = apply(operator, reduced, *constants)
        again = _reduced(self.A, self.P, self.R_y, self.rho_x, p)
        p = p + apply(operator, reduced - again, *constants)
        return torch.cat([p, (times(self.A, p) - bottom) / self.R_y], 1)

    def restricted(self, first: int) -> None:
        """See `LinearSystem`: it takes the whole system."""

    @property
    def solves_singly(self) -> bool:
        """See `LinearSystem`."""
        return False


class ConjugateGradientSolver(LinearSolver):
    """Nothing is factored: every solve is an iteration."""

    name = "cg"
    layout = "sparse"

    def suits(self, A: Pattern, P: Pattern | None, copies: int, rights: int | None) -> bool:
        """See `LinearSolver.suits`: whatever there is."""
        return True

    def factor(self, matrix: KktMatrix) -> LinearSystem:
        """See `LinearSolver.factor`; there is nothing to factor."""
        A, P, R_y = matrix.A, matrix.P, matrix.R_y
        assert isinstance(A, SparseMatrix)
        assert P is None or isinstance(P, SparseMatrix)
        return ConjugateGradients(A, P, R_y if A.ndim == 2 else R_y.expand(A.shape[0], A.shape[1]), matrix.rho_x)


def _reduced(A: SparseMatrix, P: SparseMatrix | None, R_y: Tensor, rho_x: float, p: Tensor) -> Tensor:
    """H p."""
    product = rho_x * p + transposed_times(A, times(A, p) / R_y)
    return product if P is None else product + times(P, p)


def _solve(
    A_pattern: Pattern, P_pattern: Pattern | None, rho_x: float, right: Tensor, A: Tensor, P: Tensor, R_y: Tensor
) -> Tensor:
    """H^{-1} right."""
    matrix = SparseMatrix(A, A_pattern)
    quadratic = None if P_pattern is None else SparseMatrix(P, P_pattern)
    rows, columns = A_pattern.index(right.device)
    diagonal = right.new_full(right.shape, rho_x).index_add(1, columns, A * A / R_y[:, rows])
    if P_pattern is not None:
        rows, columns = P_pattern.index(right.device)
        diagonal = diagonal.index_add(1, columns, torch.where(rows == columns, P, torch.zeros_like(P)))
    tolerance = TOLERANCE if right.dtype == torch.float64 else 1e-6
    return conjugate_gradients(partial(_reduced, matrix, quadratic, R_y, rho_x), right, 1 / diagonal, tolerance)


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor], right: Tensor, inverse_diagonal: Tensor, tolerance: float
) -> Tensor:
    """(B, n) solutions of symmetric positive definite systems, with a diagonal preconditioner; rows freeze when done.

    Stops after 10 n steps at the latest: what is missing then is for the caller's residual to show.
    """
    x, r = torch.zeros_like(right), right
    z = inverse_diagonal * r
    d, rho = z, (r * z).sum(1, keepdim=True)
    goal = tolerance * torch.linalg.vector_norm(right, dim=1, keepdim=True)
    for _ in range(10 * right.shape[1]):
        live = torch.linalg.vector_norm(r, dim=1, keepdim=True) > goal
        if not bool(live.any()):
            break
        product = matrix(d)
        curvature = (d * product).sum(1, keepdim=True)
        step = torch.where(live & (curvature > 0), rho / torch.where(curvature > 0, curvature, 1.0), 0.0)
        x, r = x + step * d, r - step * product
        z = inverse_diagonal * r
        new = (r * z).sum(1, keepdim=True)
        d = torch.where(live, z + new / torch.where(rho > 0, rho, 1.0) * d, d)
        rho = torch.where(live, new, rho)
    return x
