"""A fast solution of the adjoint system over the zero cone and the nonnegative orthant, for who can be vouched for.

There D is diagonal, 1 on inactive rows (w > 0) and 0 on active ones. With (f, g) the right-hand side, q = g on inactive
rows, and what is left is a symmetric system in p and in q on the active rows (A_a; A_i is the rest of A),

    K0 [p; q] = [[P, A_a'], [A_a, 0]] [p; q] = [f - A_i'g; -g].

K0 is indefinite, and may be singular; K0 + diag(eps, -eps) is quasi-definite, and solved by a Cholesky factorization
of P + eps I + A_a'A_a / eps, small where `Pairs` can be eliminated first (without an eps of theirs). Refinement then
leads to the solution for K0 itself: a step takes the error in a direction that K0 maps to sigma times it down by
eps / (eps + sigma), so that it stays where K0 is singular. Hence the certificate: a known, irregular solution is found
again only where K0 is regular, with singular values of more than eps.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maps.scs.adjoint.system import System
from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix, times

SHIFT = 1e-8
"""eps, as a share of the size of the system (float64): the root of the working precision, where what the shift and what
round-off leave of an error are of one size. Ten times the share up to which singular values count as zero."""

LEAST, MOST = 3, 7
"""Solves with the shifted system: where it is well conditioned, and before an instance is given up."""

FOUND, EXACT = 1e-9, 1e-14
"""Error of the known solution, and backward error of the solution, up to which an instance is vouched for."""


def applies(system: System) -> bool:
    """Whether the cones, and the precision, are such that this can be tried."""
    return set(system.cone.spec) <= {"z", "l"} and system.w.dtype == torch.float64 and system.w.shape[1] > 0


def solve(system: System, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n + m) solutions for the right-hand sides (B, n + m), and (B,) bool who is vouched for.

    Who is has a regular system, solved to working precision. The others' solutions mean nothing, and need not be
    finite. Rows do not influence each other.
    """
    batch, m = system.w.shape
    n = rhs.shape[1] - m
    found = pairs(system.patterns["A"], system.patterns.get("P"), system.cone.equalities).to(rhs.device)
    shifted, size = _shifted(system, found)
    active = shifted.active
    right = rhs.index_select(1, found.order)
    known_q = torch.where(active, 0.0, right[:, n:])
    kept = n - len(found.rows)
    top = torch.cat([right[:, :kept] - times(shifted.S.mT, known_q), right[:, kept:n]], 1)
    target = torch.cat([top, torch.where(active, -right[:, n:], 0.0)], 1)
    known = torch.cos(torch.arange(1, n + m + 1, dtype=rhs.dtype, device=rhs.device) ** 2 + 0.5)
    known = torch.cat([known[:n].expand(batch, n), torch.where(active, known[n:], 0.0)], 1)
    image = shifted.product(known)

    # one after the other: products of two rows with a matrix take three times as long as those of one
    z, again, good = shifted.solve(target), shifted.solve(image), torch.zeros_like(active[:, 0])
    for step in range(1, MOST + 1):
        rest = target - shifted.product(z)
        if step >= LEAST:
            scale = size * z.abs().amax(1, keepdim=True) + target.abs().amax(1, keepdim=True)
            exact = rest.abs() <= EXACT * (n + m) ** 0.5 * scale
            good = good | (exact & ((again - known).abs() <= FOUND)).all(1)  # NaN is neither
            if step == MOST or bool(good.all()):
                break
        done = good[:, None]  # a row goes on as long as it needs, whatever its neighbours do
        z = torch.where(done, z, z + shifted.solve(rest))
        again = torch.where(done, again, again + shifted.solve(image - shifted.product(again)))
    solution = torch.cat([z[:, :n], torch.where(active, z[:, n:], known_q)], 1)
    return solution.index_select(1, found.back), good


class Pairs(NamedTuple):
    """Equations with a variable of their own, that occurs nowhere else but on the diagonal of P.

    Such a pair is eliminated exactly, whatever the numbers. They come last in the order of rows and variables here.
    """

    rows: Tensor
    """(k,) the equations."""
    columns: Tensor
    """(k,) their variables."""
    order: Tensor
    """(n + m,) of the unknowns: other variables, those of the pairs, other rows, those of the pairs."""
    back: Tensor
    """(n + m,) the inverse."""
    curved: bool
    """Whether P has entries besides those of the pairs."""
    A: np.ndarray
    """(m, n - k) in the order here: which of A's stored entries; as many as there are for what is not stored."""
    pivots: np.ndarray
    """(k,) the same of A's entries in the pairs."""
    P: np.ndarray
    """(n - k, n - k) the same of P's entries besides the pairs."""
    squares: np.ndarray
    """(k,) and in them."""

    def to(self, device: torch.device) -> Pairs:
        """With its tensors there."""
        rows, columns, order, back = (part.to(device) for part in self[:4])
        return self._replace(rows=rows, columns=columns, order=order, back=back)


@lru_cache(maxsize=8)
def pairs(A: Pattern, P: Pattern | None, equalities: int) -> Pairs:
    """Those of the first rows, as many as there are equalities; of several variables that a row may have the first."""
    m, n = A.shape
    single = np.bincount(A.columns, minlength=n) == 1
    A_entry, stored = np.full((m, n), len(A)), 0 if P is None else len(P)
    A_entry[A.rows, A.columns] = np.arange(len(A))
    P_entry = np.full((n, n), stored)
    if P is not None:
        off = P.rows != P.columns
        single[P.rows[off]] = single[P.columns[off]] = False
        P_entry[P.rows, P.columns] = np.arange(stored)
    candidates = np.flatnonzero(single[A.columns] & (A.rows < equalities))
    rows, first = np.unique(A.rows[candidates], return_index=True)
    columns = A.columns[candidates[first]]
    variables, others = np.setdiff1d(np.arange(n), columns), np.setdiff1d(np.arange(m), rows)
    order = np.concatenate([variables, columns, n + others, n + rows])
    corner = P_entry[np.ix_(variables, variables)]

    def index(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part.astype(np.int64))

    return Pairs(
        rows=index(rows),
        columns=index(columns),
        order=index(order),
        back=index(np.argsort(order)),
        curved=bool((corner < stored).any()),
        A=A_entry[np.ix_(np.concatenate([others, rows]), variables)],
        pivots=A_entry[rows, columns],
        P=corner,
        squares=P_entry[columns, columns],
    )


class _Shifted(NamedTuple):
    """K0, and the inverse of K0 + diag(eps, -eps), in the order of `Pairs`. S, P and pivots may be shared."""

    S: Tensor
    """(B, m, n - k) or (m, n - k) A without the variables of the pairs."""
    P: Tensor | None
    """(B, n - k, n - k), None where it has only the diagonal in the pairs."""
    pivots: Tensor
    """(B, k) or (k,) A in the pairs."""
    squares: Tensor
    """(B, k) P in the pairs."""
    active: Tensor
    """(B, m) bool"""
    weight: Tensor
    """(B, m) of a row's square in the reduced matrix."""
    inverse: Tensor
    """(B, n - k, n - k) of that, NaN where it is not positive definite."""

    def product(self, z: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m) K0 z, where z is 0 on inactive rows."""
        p, own, q = self._parts(z)
        paired = q.shape[1] - own.shape[1]
        top, bottom = times(self.S.mT, q), torch.where(self.active, times(self.S, p), 0.0)
        if self.P is not None:
            top = top + times(self.P, p)
        bottom[:, paired:] += self.pivots * own
        return torch.cat([top, self.squares * own + self.pivots * q[:, paired:], bottom], 1)

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m), where both are 0 on inactive rows."""
        top, own, bottom = self._parts(right)
        paired = bottom.shape[1] - own.shape[1]
        u = self.weight * bottom
        u[:, paired:] -= own / self.pivots
        p = times(self.inverse, top + times(self.S.mT, u))
        rest = times(self.S, p) - bottom
        slack = -rest[:, paired:] / self.pivots
        q = self.weight * rest
        q[:, paired:] = (own - self.squares * slack) / self.pivots
        return torch.cat([p, slack, q], 1)

    def _parts(self, z: Tensor) -> tuple[Tensor, ...]:
        m, kept = self.S.shape[-2:]
        return z.split([kept, z.shape[1] - m - kept, m], 1)


def _shifted(system: System, found: Pairs) -> tuple[_Shifted, Tensor]:
    """And (B, 1) the size that eps is a share of: 1, or the largest entry of P where that is larger."""
    batch, m = system.w.shape
    A, P, n = system.A, system.P, system.A.shape[-1]
    kept = n - len(found.rows)
    rows, variables = found.order[n:] - n, found.order[:kept]
    active = (~system.free).index_select(1, rows)
    size = torch.ones_like(system.weight)
    if P is not None:
        entries = P.values if isinstance(P, SparseMatrix) else P.flatten(-2)
        if entries.shape[-1]:
            size = (system.weight * torch.atleast_2d(entries).abs().amax(1, keepdim=True)).clamp(min=1.0)
    eps = SHIFT * size
    S = A if isinstance(A, Tensor) and not len(found.rows) else _part(A, found.A, rows[:, None], variables)
    pivots = _part(A, found.pivots, found.rows, found.columns)
    squares, corner = eps.new_zeros(batch, len(found.rows)), None
    if P is not None:
        squares = system.weight * _part(P, found.squares, found.columns, found.columns)
        if found.curved:
            corner = system.weight[:, :, None] * _part(P, found.P, variables[:, None], variables)
    weight = torch.cat([torch.where(active[:, : m - len(found.rows)], 1 / eps, 0.0), squares / pivots**2], 1)
    H = S.mT @ (S * weight[:, :, None])
    if corner is not None:
        H = H + corner
    H.diagonal(dim1=1, dim2=2).add_(eps)
    lower, info = torch.linalg.cholesky_ex(H)
    inverse = torch.cholesky_inverse(torch.where((info == 0)[:, None, None], lower, torch.nan))
    return _Shifted(S, corner, pivots, squares, active, weight, inverse), size


def _part(matrix: Matrix, places: np.ndarray, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, ...) or shared (...) entries at rows and columns; of a sparse matrix those at `places` among the stored."""
    if isinstance(matrix, Tensor):
        return matrix[..., rows, columns]
    values, index = matrix.values, torch.from_numpy(places.ravel()).to(matrix.values.device)
    if len(index) and int(places.max()) == values.shape[-1]:
        values = torch.cat([values, torch.zeros_like(values[..., :1])], -1)
    return values.index_select(-1, index).unflatten(-1, places.shape)
