"""Dense factorizations of a whole batch, each instance as accurately as it needs.

`Reduced` eliminates q and factors the positive definite H = P + rho_x I + A' R_y^{-1} A, by Cholesky. Where that loses
accuracy (large zero-cone factors, tiny rho_x) a step of refinement follows, and where that is not enough either,
`QuasiDefinite` factors K itself by LU. An instance gets the first whose error on a known solution is small, whatever
the rest of the batch needs, so that a hard neighbour does not change its rounding. A factor that cannot be verified is
refused: on some builds batched LU is silently wrong after `torch.set_num_threads`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint.tensors.masks import is_readable
from maps.scs.linear_systems.base import FactorizationError, KktMatrix, LinearSolver, LinearSystem
from maps.scs.problem.sparse_matrix import Pattern, times

SIZE, BYTES = 1500, 2**30
"""Variables, and bytes of all matrices, up to which a batch is factored densely."""


def fits(A: Pattern, copies: int) -> bool:
    """Whether so many matrices are small enough."""
    m, n = A.shape
    return n <= SIZE and 8 * copies * n * (n + 2 * m) <= BYTES


class DenseSolver(LinearSolver):
    """Dense factors of the reduced system or, where K has unweighted rows, a dense inverse."""

    name = "dense"
    layout = "dense"
    can_eliminate = True

    def suits(self, A: Pattern, P: Pattern | None, copies: int, rights: int | None) -> bool:
        """See `LinearSolver.suits`."""
        return fits(A, copies)

    def factor(self, matrix: KktMatrix) -> LinearSystem:
        """See `LinearSolver.factor`."""
        assert isinstance(matrix.A, Tensor)
        assert matrix.P is None or isinstance(matrix.P, Tensor)
        make = factor if matrix.unweighted_rows is None else invert
        return make(matrix.A, matrix.P, matrix.R_y, matrix.rho_x)


class Reduced(NamedTuple):
    """The reduced system, inverted. Tensors are batch-first, or without a batch axis when shared."""

    A: Tensor
    """(B, m, n)"""
    block: Tensor
    """(B, n, n) P + rho_x I."""
    inverse: Tensor
    """(B, n, n) inverse of H, from its Cholesky factor: its products are 10 times faster than triangular solves."""
    R_y: Tensor
    """(B, m), or (m,) when shared."""

    def solve(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n), (B, m) -> (p, q)."""
        p = times(self.inverse, top + times(self.A.mT, bottom / self.R_y))
        return p, (times(self.A, p) - bottom) / self.R_y


class QuasiDefinite(NamedTuple):
    """LU of K, with one step of refinement."""

    K: Tensor
    """(B, n + m, n + m)"""
    lu: Tensor
    pivots: Tensor

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""
        solution = self._once(right)
        return solution + self._once(right - times(self.K, solution))

    def _once(self, right: Tensor) -> Tensor:
        if self.lu.ndim == 2:
            return torch.linalg.lu_solve(self.lu, self.pivots, right.mT).mT
        return torch.linalg.lu_solve(self.lu, self.pivots, right[:, :, None])[:, :, 0]


class Dense(NamedTuple):
    """The solvers that the batch needs, and who needs which; None where nobody needs more."""

    reduced: Reduced
    refined: Tensor | None = None
    """(B, 1) bool, or (1, 1) when shared: where a step of refinement follows."""
    full: QuasiDefinite | None = None
    direct: Tensor | None = None
    """(B, 1) bool, or (1, 1) when shared: where `full` is used instead."""

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""
        n = self.reduced.block.shape[-1]
        top, bottom = right[:, :n], right[:, n:]
        p, q = self.reduced.solve(top, bottom)
        if self.refined is not None:
            top_again, bottom_again = _forward(self.reduced.A, self.reduced.block, self.reduced.R_y, p, q)
            dp, dq = self.reduced.solve(top - top_again, bottom - bottom_again)
            p, q = torch.where(self.refined, p + dp, p), torch.where(self.refined, q + dq, q)
        solution = torch.cat([p, q], 1)
        if self.full is not None and self.direct is not None:
            solution = torch.where(self.direct, self.full.solve(right), solution)
        return solution

    def restricted(self, first: int) -> None:
        """See `LinearSystem`: it takes the whole system."""

    @property
    def solves_singly(self) -> bool:
        """See `LinearSystem`."""
        return False


class Inverse(NamedTuple):
    """The inverse of K, with one step of refinement, for K that has no reduced system: equations without a weight."""

    K: Tensor
    """(B, n + m, n + m), or (n + m, n + m) when shared."""
    inverse: Tensor

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""
        solution = times(self.inverse, right)
        return solution + times(self.inverse, right - times(self.K, solution))

    def restricted(self, first: int) -> None:
        """See `LinearSystem`: it takes the whole system."""

    @property
    def solves_singly(self) -> bool:
        """See `LinearSystem`."""
        return False


def invert(A: Tensor, P: Tensor | None, R_y: Tensor, rho_x: float) -> Inverse:
    """Invert K for a batch, or once for a shared A and P: as `factor`, where R_y and rho_x may be next to nothing.

    Raises:
        FactorizationError: K is singular in all instances, or its inverse is not one. Where only some are, these get
            NaN.
    """
    block = rho_x * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    block = (block if P is None else P + block).expand(*A.shape[:-2], *block.shape)
    R_rows = R_y if A.ndim == 2 else R_y.expand(A.shape[0], A.shape[1])
    K = torch.cat([torch.cat([block, A.mT], -1), torch.cat([A, torch.diag_embed(-R_rows)], -1)], -2)
    system = Inverse(K, torch.linalg.inv_ex(K).inverse)
    if not is_readable(A):
        return system
    with torch.no_grad():
        known = torch.cat(_known_solution(A), 1)
        wrong = ~((system.solve(times(K, known)) - known).abs().amax(1) <= (1e-8 if A.dtype == torch.float64 else 1e-3))
        finite = torch.isfinite(K).flatten(-2).all(-1).reshape(-1)  # other rows are somebody else's to report
    if bool((wrong & finite).any()) and bool(wrong[finite].all()):
        raise FactorizationError(
            "A, P: x and the duals of equations are not determined by the others (equations that repeat each other, or "
            "a direction that neither P nor a constraint sees), or the rows are scaled badly; use eliminate=False, or "
            "normalize=True"
        )
    if bool(wrong.any()):  # NaN makes these DIVERGED, the others go on
        system = system._replace(inverse=torch.where(wrong[:, None, None], torch.nan, system.inverse))
    return system


def factor(A: Tensor, P: Tensor | None, R_y: Tensor, rho_x: float) -> Dense:
    """Factor K for a batch, or once for a shared A and P.

    Args:
        A: (B, m, n), or (m, n) shared.
        P: (B, n, n) or (n, n), like A; None for 0.
        R_y: (m,) positive, or (B, m).
        rho_x: positive.

    Raises:
        FactorizationError: no instance's factor reproduced a known solution. Where only some do not, these get a
            factor of NaN, and end as DIVERGED.
    """
    n = A.shape[-1]
    block = rho_x * torch.eye(n, dtype=A.dtype, device=A.device)
    block = (block if P is None else P + block).expand(*A.shape[:-2], n, n)
    known = _known_solution(A)
    target = _forward(A, block, R_y, *known)
    limit = 1e-12 if A.dtype == torch.float64 else 1e-4
    H = block + (A.mT / R_y[..., None, :]) @ A
    identity = torch.eye(n, dtype=A.dtype, device=A.device).expand_as(H)
    inverse = torch.cholesky_solve(identity, torch.linalg.cholesky_ex(H).L)  # cholesky_inverse has a wrong jvp
    R_rows = R_y if A.ndim == 2 else R_y.expand(A.shape[0], A.shape[1])
    # other rows are somebody else's to report: they choose nothing
    finite = torch.isfinite(H).flatten(-2).all(-1).reshape(-1)
    system = Dense(Reduced(A, block, inverse, R_rows))
    with torch.no_grad():
        inexact = finite & ~(_error(system, target, known) <= limit)
    if is_readable(A) and not bool(inexact.any()):
        return system
    system = system._replace(refined=inexact[:, None])
    with torch.no_grad():
        inexact = finite & ~(_error(system, target, known) <= limit)
    if not is_readable(A) or not bool(inexact.any()):  # inside vmap nobody can be told apart: refined, and no LU
        return system

    corner = torch.diag_embed(-R_rows)
    K = torch.cat([torch.cat([block, A.mT], -1), torch.cat([A, corner], -1)], -2)
    lu, pivots, _ = torch.linalg.lu_factor_ex(K)
    full = QuasiDefinite(K, lu, pivots)
    with torch.no_grad():
        size = torch.linalg.vector_norm(K, dim=(-2, -1))
        right = torch.cat(target, 1)
        solution = full.solve(right)
        residual = torch.linalg.vector_norm(times(K, solution) - right, dim=1)
        backward = residual / (size * torch.linalg.vector_norm(solution, dim=1))
        wrong = inexact & ~(backward <= 1e4 * torch.finfo(A.dtype).eps)
    if bool(wrong[finite].all()):
        raise FactorizationError(
            "A, P: the linear system could not be factored accurately (relative residual "
            f"{float(backward.max()):.1e}); rescale the data or raise rho_x. Was torch.set_num_threads called in this "
            "process? It breaks batched factorizations on some builds"
        )
    if lu.ndim == 3:  # a row whose factor is wrong must not be solved with it: NaN makes it DIVERGED, the others go on
        full = full._replace(lu=torch.where(wrong.reshape(-1, 1, 1), torch.nan, lu))
    return system._replace(full=full, direct=inexact[:, None])


def _known_solution(A: Tensor) -> tuple[Tensor, Tensor]:
    """A fixed, irregular (p, q) of size 1 for every instance: (B or 1, n), (B or 1, m)."""
    m, n = A.shape[-2:]
    batch = A.shape[0] if A.ndim == 3 else 1
    wave = torch.cos(torch.arange(n + m, dtype=A.dtype, device=A.device) ** 2 + 0.5).expand(batch, -1)
    return wave[:, :n], wave[:, n:]


def _forward(A: Tensor, block: Tensor, R_y: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """K [p; q]."""
    return times(block, p) + times(A.mT, q), times(A, p) - R_y * q


def _error(system: Dense, target: tuple[Tensor, Tensor], known: tuple[Tensor, Tensor]) -> Tensor:
    """(B,) largest error of the solution of `target`, relative to the largest entry of the known one."""
    difference = system.solve(torch.cat(target, 1)) - torch.cat(known, 1)
    return difference.abs().amax(1) / torch.cat(known, 1).abs().amax(1)
