"""Dense factorizations of a whole batch.

`Reduced` eliminates q and factors the positive definite H = P + rho_x I + A' R_y^{-1} A, by Cholesky, with a step of
refinement where the elimination loses accuracy (large zero-cone factors, tiny rho_x); `QuasiDefinite` factors K itself
by LU where that is not enough. `factor` takes the first whose error on a known solution is small, and refuses a factor
it cannot verify: on some builds batched LU is silently wrong after `torch.set_num_threads`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maps.scs.matrix import times


class FactorizationError(ArithmeticError):
    """No factorization of the linear system passed its check, for any instance."""


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
    refine: bool
    """Whether one step of refinement against K follows."""

    def solve(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n), (B, m) -> (p, q)."""
        p, q = self._once(top, bottom)
        if self.refine:
            top_again, bottom_again = _forward(self.A, self.block, self.R_y, p, q)
            dp, dq = self._once(top - top_again, bottom - bottom_again)
            p, q = p + dp, q + dq
        return p, q

    def _once(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        p = times(self.inverse, top + times(self.A.mT, bottom / self.R_y))
        return p, (times(self.A, p) - bottom) / self.R_y


class QuasiDefinite(NamedTuple):
    """LU of K, with one step of refinement."""

    K: Tensor
    """(B, n + m, n + m)"""
    lu: Tensor
    pivots: Tensor

    def solve(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n), (B, m) -> (p, q)."""
        right = torch.cat([top, bottom], dim=1)
        solution = self._once(right)
        solution = solution + self._once(right - times(self.K, solution))
        return solution[:, : top.shape[1]], solution[:, top.shape[1] :]

    def _once(self, right: Tensor) -> Tensor:
        if self.lu.ndim == 2:
            return torch.linalg.lu_solve(self.lu, self.pivots, right.mT).mT
        return torch.linalg.lu_solve(self.lu, self.pivots, right[:, :, None])[:, :, 0]


def factor(A: Tensor, P: Tensor | None, R_y: Tensor, rho_x: float) -> Reduced | QuasiDefinite:
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
    finite = torch.isfinite(H).flatten(-2).all(-1)  # other rows are somebody else's to report: they choose nothing
    for refine in (False, True):
        reduced = Reduced(A, block, inverse, R_rows, refine)
        with torch.no_grad():
            usable = (_error(reduced, target, known) <= limit) | ~finite
        if bool(usable.all()):
            return reduced

    corner = torch.diag_embed(-R_rows)
    K = torch.cat([torch.cat([block, A.mT], -1), torch.cat([A, corner], -1)], -2)
    lu, pivots, _ = torch.linalg.lu_factor_ex(K)
    full = QuasiDefinite(K, lu, pivots)
    with torch.no_grad():
        size = torch.linalg.vector_norm(K, dim=(-2, -1))
        p, q = full.solve(*target)
        again = torch.cat(_forward(A, block, R_y, p, q), 1)
        residual = torch.linalg.vector_norm(again - torch.cat(target, 1), dim=1)
        backward = residual / (size * torch.linalg.vector_norm(torch.cat([p, q], 1), dim=1))
        wrong = ~(backward <= 1e4 * torch.finfo(A.dtype).eps)
    if bool(wrong.all()):
        raise FactorizationError(
            "A, P: the linear system could not be factored accurately (relative residual "
            f"{float(backward.max()):.1e}); rescale the data or raise rho_x. Was torch.set_num_threads called in this "
            "process? It breaks batched factorizations on some builds"
        )
    # a row whose factor is wrong must not be solved with it: NaN makes it DIVERGED, the others go on
    return full._replace(lu=torch.where(wrong.reshape(-1, 1, 1), torch.nan, lu)) if lu.ndim == 3 else full


def _known_solution(A: Tensor) -> tuple[Tensor, Tensor]:
    """A fixed, irregular (p, q) of size 1 for every instance: (B or 1, n), (B or 1, m)."""
    m, n = A.shape[-2:]
    batch = A.shape[0] if A.ndim == 3 else 1
    wave = torch.cos(torch.arange(n + m, dtype=A.dtype, device=A.device) ** 2 + 0.5).expand(batch, -1)
    return wave[:, :n], wave[:, n:]


def _forward(A: Tensor, block: Tensor, R_y: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """K [p; q]."""
    return times(block, p) + times(A.mT, q), times(A, p) - R_y * q


def _error(system: Reduced | QuasiDefinite, target: tuple[Tensor, Tensor], known: tuple[Tensor, Tensor]) -> Tensor:
    """(B,) largest error of the solution of `target`, relative to the largest entry of the known one."""
    difference = torch.cat(system.solve(*target), 1) - torch.cat(known, 1)
    return difference.abs().amax(1) / torch.cat(known, 1).abs().amax(1)
