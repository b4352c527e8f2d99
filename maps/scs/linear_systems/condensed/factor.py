"""K by static condensation: unknowns that do not touch each other are eliminated by rounds, what is left is dense.

Where the batch shares K all rounds are one sparse matrix, made once: a solve is two sparse products and one small dense
one. Where every instance has its own K, of one pattern, a solve is a few operations on the whole batch for each round.
`ordering` finds the order. Torch sees a constant operator: where the matrices are differentiated or mapped, a dense
factor is used instead.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint.tensors.masks import finite_rows, is_constant
from maps.scs.linear_systems import dense
from maps.scs.linear_systems.base import KktMatrix, LinearSystem
from maps.scs.linear_systems.condensed.composed import ComposedOperator
from maps.scs.linear_systems.condensed.ordering import DENSE, SPARSE, Plan, Restriction, plan, restriction
from maps.scs.linear_systems.condensed.runs import Index, Places, take
from maps.scs.linear_systems.kkt import apply, kkt_product
from maps.scs.problem.norms import infinity_norm
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix

OWN_EDGE, OWN_ENTRY = 6.0, 0.4
"""Nanoseconds for an edge, and for an entry of a dense matrix, where every instance has its own. (Measured; only the
ratios matter.)"""
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}


class Condensed(NamedTuple):
    """Factors of K. Tensors are batch-first, or without a batch axis when shared."""

    A: SparseMatrix
    P: SparseMatrix | None
    R_y: Tensor
    """(B, m), or (m,) when shared."""
    rho_x: float
    operator: Any
    """(right (B, n + m), *factors) -> (B, n + m)."""
    factors: tuple[Tensor, ...]
    """What belongs to instances; the operator has inside it what is shared."""
    refined: Tensor | None = None
    """(B, 1) bool: where a step of refinement follows; None: nowhere, or inside the operator."""
    dense: dense.Dense | dense.Inverse | None = None
    direct: Tensor | None = None
    """(B, 1) bool: who is solved by `dense` instead."""

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""
        solution = apply(self.operator, right, *self.factors)
        if self.refined is not None:
            rest = right - kkt_product(self.A, self.P, self.R_y, self.rho_x, solution)
            solution = torch.where(self.refined, solution + apply(self.operator, rest, *self.factors), solution)
        if self.dense is not None and self.direct is not None:
            solution = torch.where(self.direct, self.dense.solve(right), solution)
        return solution

    def restricted(self, first: int) -> Restricted | None:
        """K^{-1} from the unknowns from `first` on to themselves; None where the whole of it does no more."""
        if self.A.ndim == 2 or self.refined is not None or self.direct is not None:
            return None
        found = restriction(self.operator.args[0], first)
        *rounds, multiplier, reciprocal, core = self.factors
        kept = [part[:, which] for part, which in zip(rounds, found.places, strict=True)]
        tail = (multiplier[:, found.in_block], reciprocal[:, found.in_block], core)
        return Restricted(partial(_solve_each, found), (*kept, *tail))

    @property
    def solves_singly(self) -> bool:
        """See `LinearSystem`."""
        return False


class Restricted(NamedTuple):
    """A restriction of the factors of a batch of matrices."""

    operator: Any
    factors: tuple[Tensor, ...]

    def solve(self, right: Tensor) -> Tensor:
        """(B, k) -> (B, k)."""
        return apply(self.operator, right, *self.factors)


def cheaper(A: Pattern, P: Pattern | None, copies: int) -> bool:
    """Whether a solve costs half as much as one with the dense reduced system, or less."""
    (m, n), found = A.shape, plan(A, P, shared=copies == 1)
    core, block = len(found.core), len(found.block)
    if copies == 1:
        return 4 * SPARSE * found.edges + DENSE * core**2 <= DENSE * (n * n + 2 * n * m) / 2
    return OWN_EDGE * found.edges + OWN_ENTRY * (core**2 + 2 * core * block) <= OWN_ENTRY * (n * n + 2 * n * m) / 2


def factor(matrix: KktMatrix) -> LinearSystem:
    """See `LinearSolver.factor`; instances whose condensation is not accurate get a dense factor."""
    A, P, R_y, rho_x, unweighted_rows = matrix.A, matrix.P, matrix.R_y, matrix.rho_x, matrix.unweighted_rows
    assert isinstance(A, SparseMatrix)
    assert P is None or isinstance(P, SparseMatrix)
    direct: Any = dense.factor if unweighted_rows is None else dense.invert
    if not all(is_constant(t) for t in (A.values, R_y, *(() if P is None else (P.values,)))):
        return direct(A.to_dense(), None if P is None else P.to_dense(), R_y, rho_x)
    found = plan(A.pattern, None if P is None else P.pattern, shared=A.ndim == 2, equations=unweighted_rows or 0)
    R_y = R_y if A.ndim == 2 else R_y.expand(A.shape[0], A.shape[1])
    with torch.no_grad():
        operator: Any = partial(_solve_each, found)
        numbers: tuple[Tensor, ...] = ()
        if A.ndim == 2:  # once for the batch: exactly, whatever the dtype
            operator = ComposedOperator(found, _eliminate(found, _entries(found, A, P, R_y, rho_x).double(), A.values))
        else:
            numbers = _eliminate(found, _entries(found, A, P, R_y, rho_x), A.values)
        system = Condensed(A, P, R_y, rho_x, operator, numbers)
        known = torch.cos(torch.arange(found.size, dtype=R_y.dtype, device=R_y.device) ** 2 + 0.5).expand(
            1 if A.ndim == 2 else len(R_y), -1
        )
        target = kkt_product(A, P, R_y, rho_x, known)
        whole = finite_rows(target)  # other rows are somebody else's to report
        limit = max(_TOLERANCE[R_y.dtype], matrix.tolerance)

        def inexact(system: Condensed) -> Tensor:
            return whole & ~(infinity_norm(system.solve(target) - known) <= limit)

        wrong = inexact(system)
        if bool(wrong.any()) and A.ndim == 3 and R_y.dtype == torch.float32:
            # for these in double precision, once: a step of refinement would cost the chunk something in every solve
            rows = torch.nonzero(wrong).flatten()
            some, quadratic = _double(A, rows), None if P is None else _double(P, rows)
            exact = _eliminate(found, _entries(found, some, quadratic, R_y[rows].double(), rho_x), some.values)
            for part, better in zip(numbers, exact, strict=True):
                part.index_copy_(0, rows, better.to(part.dtype))
            wrong = inexact(system)
        if bool(wrong.any()):
            if A.ndim == 2:
                operator.refine(A, P, R_y, rho_x)
            else:
                system = system._replace(refined=wrong[:, None])
            wrong = inexact(system)
    if not bool(wrong.any()):
        return system
    full = direct(A.to_dense(), None if P is None else P.to_dense(), R_y, rho_x)
    return full if A.ndim == 2 or bool(wrong.all()) else system._replace(dense=full, direct=wrong[:, None])


def _double(matrix: SparseMatrix, rows: Tensor) -> SparseMatrix:
    """Some instances' matrices in double precision."""
    return SparseMatrix(matrix.values[rows].double(), matrix.pattern)


def _entries(found: Plan, A: SparseMatrix, P: SparseMatrix | None, R_y: Tensor, rho_x: float) -> Tensor:
    """(B or 1, entries + 1) K's, but for the block that A gives, and a 0 for what no entry stands for."""
    n = A.shape[-1]
    values = R_y.new_zeros(A.values.shape[0] if A.ndim == 3 else 1, found.entries + 1)
    rest = torch.from_numpy(found.A_rest)
    values[:, torch.from_numpy(found.A_entry)] = A.values.index_select(-1, rest)
    if P is not None:
        values[:, torch.from_numpy(found.P_entry)] = P.values
    values[:, :n] += rho_x
    values[:, n : found.size] = -R_y
    return values


def _eliminate(found: Plan, values: Tensor, A: Tensor) -> tuple[Tensor, ...]:
    """The factors from K's entries (B, entries + 1), which it changes, and A's (B or none, nnz).

    For each round the multipliers of its edges (B, edges) and the reciprocal pivots (B, pivots); then those of the
    block (B, block, core), (B, block); then the inverse of the core (B, core, core).
    """
    factors: list[Tensor] = []
    for step in found.factoring:
        reciprocal, edge = 1 / take(values, step.pivot), take(values, step.edge)
        multiplier = edge * take(reciprocal, step.of_pivot)
        for _, entry, left, right in step.updates:
            _subtract(values, entry, take(multiplier, left), take(edge, right))
        factors += [multiplier, reciprocal]
    reciprocal = 1 / take(values, torch.from_numpy(found.block))
    between = _dense(found.block_entry, values) if found.given is None else found.given.view(A)
    multiplier = (between * reciprocal[:, :, None]).contiguous()
    rest = torch.baddbmm(_dense(found.core_entry, values), multiplier.mT, between, alpha=-1)
    weak = found.core[(found.core >= found.n) & (found.core < found.n + found.equations)]
    inverse = (
        torch.linalg.inv_ex(rest).inverse if len(weak) else _inverse(rest, int(np.searchsorted(found.core, found.n)))
    )
    return (*factors, multiplier, reciprocal, inverse)


def _dense(entry: Index, values: Tensor) -> Tensor:
    """(B, ...) the entries at places among them; most may be the 0 at the end."""
    places = entry.ravel()
    there = np.flatnonzero(places < values.shape[1] - 1)
    found = values.new_zeros(len(values), len(places))
    found.index_copy_(1, torch.from_numpy(there), values.index_select(1, torch.from_numpy(places[there])))
    return found.unflatten(1, entry.shape)


def _inverse(matrix: Tensor, n: int) -> Tensor:
    """(B, k, k) inverse of [[E, F'], [F, -G]] with positive definite E (n x n) and G, by two Cholesky factors.

    G comes first: it is never tiny, while E may be rho_x.
    """
    if n == matrix.shape[1]:
        return _positive_inverse(matrix)
    E, F, G = matrix[:, :n, :n], matrix[:, n:, :n], -matrix[:, n:, n:]
    inverse_G = _positive_inverse(G)
    W = inverse_G @ F
    S = _positive_inverse(E + F.mT @ W)
    WS = W @ S
    return torch.cat([torch.cat([S, WS.mT], 2), torch.cat([WS, WS @ W.mT - inverse_G], 2)], 1)


def _positive_inverse(matrix: Tensor) -> Tensor:
    """NaN where it is not positive definite."""
    lower, info = torch.linalg.cholesky_ex(matrix)
    if bool(info.any()):
        lower = torch.where((info == 0)[:, None, None], lower, torch.nan)
    return torch.cholesky_inverse(lower)  # nobody differentiates it here


def _solve_each(found: Plan | Restriction, right: Tensor, *factors: Tensor) -> Tensor:
    """K^{-1} right with a K per instance; unknowns beyond the right side's have a 0 there, and are left out."""
    *rounds, multiplier, reciprocal, core_inverse = factors
    size, steps, block, core = found.solving
    width = right.shape[1]
    x = right.clone() if width == size else torch.nn.functional.pad(right, (0, size - width))
    for step, edges in zip(steps, rounds[::2], strict=True):
        for at, pivot, other in step.edges:
            _subtract(x, other, take(edges, at), take(x, pivot))
    inner, centre = take(x, block), take(x, core)
    if multiplier.shape[1]:
        centre = centre - (inner[:, None] @ multiplier)[:, 0]
    centre = (centre[:, None] @ core_inverse)[:, 0]
    if multiplier.shape[1]:
        x[:, block] = inner * reciprocal - (centre[:, None] @ multiplier.mT)[:, 0]
    x[:, core] = centre
    for step, edges, scale in zip(reversed(steps), reversed(rounds[::2]), reversed(rounds[1::2]), strict=True):
        for at, pivots in step.pivots:
            x[:, pivots] *= scale[:, at]
        for at, pivot, other in step.edges:
            _subtract(x, pivot, take(edges, at), take(x, other))
    return x[:, :width]


def _subtract(x: Tensor, places: Places, factor: Tensor, values: Tensor) -> None:
    """Take factor * values (B, k) off x at some places, in which none comes twice where they are a slice."""
    if isinstance(places, slice):
        x[:, places].addcmul_(factor, values, value=-1)
    else:
        x.index_add_(1, places, factor * values, alpha=-1)
