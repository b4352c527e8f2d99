"""A step on the inequalities alone.

In the limit rho_x -> 0, zero_cone_factor -> infinity the metric R is 0 on x and on the duals of equations: what the
state says there has no influence on u~ = (R + M)^{-1} R v, and their projection is the identity, so they need no state
at all. What is left is Douglas-Rachford splitting in the coordinates of the inequalities and tau; with p's part of them
a step is that of `step`, and x and the duals of equations are read from u~ where somebody asks (`free`). The tau
equation stays the same, since its inner products are in the metric R.

R is not quite 0 there but `WEIGHT`, which keeps K quasi-definite; what is lost is of that size, relative to x and y.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fixedpoint import Context
from fixedpoint.tensors.masks import is_constant
from maps.scs.iteration.residuals import KktNorms, scaled_norm
from maps.scs.iteration.state import InnerPoint
from maps.scs.linear_systems import LinearSystem
from maps.scs.problem.sparse_matrix import SparseMatrix, rows_from, times, transposed_times

WEIGHT = 1e-12
"""R of x and of the duals of equations."""


class ReducedOperator(NamedTuple):
    """How p answers to v where a batch shares K."""

    kept: Tensor
    """(k, k) v -> p's inequalities."""
    free: Tensor
    """(k, n + equations) v -> the rest of p."""
    A: Any
    """(k, n) A's rows of the inequalities."""
    read: Tensor | None = None
    """(r,) int64 what of p a check reads beside the inequalities; None: everything."""
    seen: Tensor | None = None
    """(k, r) these columns of `free`."""

    @classmethod
    def of(cls, system: LinearSystem, A: Any, R: Tensor, first: int) -> ReducedOperator:
        """Args: the system, A (m, n), R (n + m + 1,), the first inequality among the unknowns."""
        weights = R[first:-1]
        right = torch.cat([weights.new_zeros(len(weights), first), -torch.diag(weights)], 1)
        answers = system.solve(right)
        own = first - A.shape[-1]
        return cls(answers[:, first:].contiguous(), answers[:, :first].contiguous(), rows_from(A, own))

    def reading(self, P: Any, c: Tensor, b_z: Tensor) -> ReducedOperator:
        """For checks of rows with these c (B, n) and b of equations (B, m_z), which read x where P or c are not zero,
        and duals of equations where b is not.
        """
        values = P.values if isinstance(P, SparseMatrix) else P
        if not all(t is None or is_constant(t) for t in (values, c, b_z)):  # a derivative may ask for more
            return self._replace(read=None, seen=None)
        mask = torch.cat([(c != 0).any(0), (b_z != 0).any(0)])
        if P is not None:
            columns = P.pattern.index(c.device)[1] if isinstance(P, SparseMatrix) else (P != 0).any(0).nonzero()[:, 0]
            mask[columns] = True
        read = mask.nonzero()[:, 0]
        return self._replace(read=read, seen=self.free.index_select(1, read))


def solve(v: Tensor, R: Tensor, context: Context) -> Tensor:
    """(B, k) p's inequalities for those of v; R (n + m,) or (B, n + m)."""
    response = context.shared.response
    if response is not None:
        return v @ response.kept
    first = R.shape[-1] - v.shape[1]
    right = -R[..., first:] * v
    if context.rows.restricted is not None:
        return context.rows.restricted.solve(right)
    return _whole(right, context)[:, first:]


def free(aux: InnerPoint, R: Tensor, context: Context) -> Tensor:
    """(B, n + equations) x and the duals of equations at u~; R (n + m + 1,) or (B, n + m + 1)."""
    v, tau = aux.v[:, :-1], aux.v[:, -1:] + aux.linear_step[:, -1:]
    first = R.shape[-1] - aux.v.shape[1]
    response = context.shared.response
    p = v @ response.free if response is not None else _whole(-R[..., first:-1] * v, context)[:, :first]
    return torch.addcmul(p, tau, context.rows.g[:, :first], value=-1)


def _read(aux: InnerPoint, R: Tensor, context: Context) -> Tensor:
    """`free`, but 0 where a check does not look."""
    response = context.shared.response
    if response is None or response.read is None:
        return free(aux, R, context)
    v, tau = aux.v[:, :-1], aux.v[:, -1:] + aux.linear_step[:, -1:]
    found = torch.addcmul(v @ response.seen, tau, context.rows.g.index_select(1, response.read), value=-1)
    return found.new_zeros(len(v), R.shape[-1] - aux.v.shape[1]).index_copy(1, response.read, found)


def kkt_norms(aux: InnerPoint, R: Tensor, context: Context) -> KktNorms:
    """As `residuals.kkt_norms`, for less: what A and P make of u~ is known from the system that it solves.

    With w = u - u~: A x = b tau~ on equations and R (u~ - v) + b tau~ on inequalities, P x + A'y~ = -c tau~, and so
    P x + A'y + c tau = A'w + c (tau - tau~), where only inequalities have a w.

    Args:
        aux: the inner point; `R` (n + m + 1,) or (B, n + m + 1).
    """
    rows = context.rows
    units, (b, c), sigma = rows.units, rows.data[2:], rows.scaling.sigma
    k = aux.v.shape[1] - 1
    n, equations, R_i = c.shape[1], b.shape[1] - k, R[..., -k - 1 : -1]
    P = rows.data.P if context.shared.A is None else context.shared.P
    half, tau_tilde, tau = aux.linear_step[:, :k], aux.v[:, k:] + aux.linear_step[:, k:], aux.projected[:, k:]
    y, b_z, b_i = aux.projected[:, :k], b[:, :equations], b[:, equations:]
    x, y_z = _read(aux, R, context).split([n, equations], 1)
    unit = None if units.rows is None else units.rows[:, equations:]

    w = y - aux.v[:, :k] - half
    of_half = R_i * half
    Ax = torch.addcmul(of_half, b_i, tau_tilde)
    s = torch.addcmul(of_half, R_i, w, value=-1).neg()
    ray = Ax + s
    one, before, square = tau[:, 0], tau_tilde[:, 0].abs(), sigma[:, 0] ** 2
    nothing = torch.zeros_like(one)
    if context.shared.response is None:
        A_i = rows_from(rows.data.A if context.shared.A is None else context.shared.A, equations)
    else:
        A_i = context.shared.response.A
    dual = torch.addcmul(transposed_times(A_i, w), tau - tau_tilde, c)
    Px = torch.zeros_like(x) if P is None else times(P, x)
    return KktNorms(
        tau=one,
        primal=torch.maximum(scaled_norm(ray - tau * b_i, unit), (one - tau_tilde[:, 0]).abs() * units.b_z),
        Ax=torch.maximum(scaled_norm(Ax, unit), before * units.b_z),
        s=scaled_norm(s, unit),
        b=one.abs() * units.b,
        dual=scaled_norm(dual, units.columns),
        Px=nothing if P is None else scaled_norm(Px, units.columns),
        Aty=scaled_norm(dual - torch.addcmul(Px, tau, c), units.columns),
        c=one.abs() * units.c,
        ray=torch.maximum(scaled_norm(ray, unit), before * units.b_z),
        xPx=nothing if P is None else (x * Px).sum(1) / square,
        cx=(c * x).sum(1) / square,
        by=((b_z * y_z).sum(1) + (b_i * y).sum(1)) / square,
    )


def _whole(right: Tensor, context: Context) -> Tensor:
    """(B, k) right sides of the inequalities -> (B, n + m)."""
    first = context.rows.g.shape[1] - right.shape[1]
    whole = torch.cat([right.new_zeros(len(right), first), right], 1)
    if context.shared.system is None:
        return context.rows.system.solve(whole)
    return context.shared.system.solve(whole.double()).to(right.dtype)  # a shared factor is of double precision
