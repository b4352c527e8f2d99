"""Anderson acceleration as the SCS solver has it: at every few evaluations, from a full memory, with a safeguard.

At every `interval`-th evaluation it is shown the last point x and f = f(x), and keeps the last m differences between
such calls: S = [dx], Y = [dg] with g = x - f. Once the memory is full it solves

    (X'Y + r I) gamma = X'g,    X = S (type I) or Y (type II),    r = regularization ||X||_F ||Y||_F

and goes to f - (S - Y) gamma. The next evaluation judges the step: if its residual is larger than ||g||, the iteration
goes back to f and the memory is emptied. Everything is measured in the Euclidean norm.

Sources: Zhang, O'Donoghue & Boyd, "Globally convergent type-I Anderson acceleration for non-smooth fixed-point
iterations" (2020); O'Donoghue, "Operator splitting for a homogeneous embedding of the linear complementarity problem"
(2021). The details follow what the scs 3.3.1 package computes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.linalg import qr, solve_triangular, vector_norm

from accelerators.anderson import combine
from fixedpoint import Accelerator, Evaluation
from fixedpoint.tensors.masks import is_readable, where_rows


class ScsAndersonState(NamedTuple):
    """The memory of each instance and the step that waits to be judged."""

    x: Tensor
    """(B, n) the point of the last call."""
    fx: Tensor
    """(B, n) f there: where a rejected step goes back to."""
    dx: Tensor
    """(B, m, n) S; of use once there were more than m calls."""
    dg: Tensor
    """(B, m, n) Y, likewise."""
    calls: Tensor
    """(B,) int64, calls since the memory was last emptied."""
    seen: Tensor
    """(B,) int64, evaluations seen."""
    proposed: Tensor
    """(B,) bool, whether the current point is an extrapolation, to be judged by the next evaluation."""


class ScsAnderson(Accelerator):
    """The Anderson acceleration of SCS 3.3.1; the defaults are its own.

    Args:
        memory: m >= 1, differences kept (SCS: `acceleration_lookback`); at most the length of x is used.
        interval: evaluations between calls, >= 1 (SCS: `acceleration_interval`).
        kind: 1 or 2, the type (SCS: `acceleration_type_1`).
        regularization: relative ridge >= 0.
        relaxation: in (0, 2); 1 takes the whole step.
        safeguard: > 0; a step is rejected when its residual norm exceeds `safeguard` times the last call's.
        max_weight: > 0; no step is taken when ||gamma||_2 is not below it.

    Raises:
        ValueError: an argument outside its range.
    """

    uses_features = False
    promises = frozenset({"scale-invariant", "rotation-invariant"})

    def __init__(
        self,
        memory: int = 10,
        interval: int = 5,
        kind: Literal[1, 2] = 1,
        regularization: float = 1e-8,
        relaxation: float = 1.0,
        safeguard: float = 1.0,
        max_weight: float = 1e10,
    ) -> None:
        for name, count in (("memory", memory), ("interval", interval)):
            if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 10_000:
                raise ValueError(f"{name}: expected a whole number from 1 to 10000, got {count!r}")
        if kind not in (1, 2):
            raise ValueError(f"kind: expected 1 or 2, got {kind!r}")
        if not 0 <= regularization < 1:
            raise ValueError(f"regularization: expected a number in [0, 1), got {regularization!r}")
        if not 0 < relaxation < 2:
            raise ValueError(f"relaxation: expected a number in (0, 2), got {relaxation!r}")
        for name, number in (("safeguard", safeguard), ("max_weight", max_weight)):
            if not number > 0:
                raise ValueError(f"{name}: expected a positive number, got {number!r}")
        self.memory, self.interval, self.kind = memory, interval, kind
        self.regularization, self.relaxation = regularization, relaxation
        self.safeguard, self.max_weight = safeguard, max_weight

    def init(
        self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None
    ) -> tuple[Tensor, ScsAndersonState]:
        """Start at x0 with an empty memory."""
        batch, size = x0.shape
        empty = x0.new_zeros(batch, min(self.memory, size), size)
        none = torch.zeros_like(x0[:, 0], dtype=torch.int64)
        return x0, ScsAndersonState(
            x=x0, fx=x0, dx=empty, dg=empty.clone(), calls=none, seen=none.clone(), proposed=none > 0
        )

    def step(self, at: Evaluation, state: ScsAndersonState) -> tuple[Tensor, ScsAndersonState]:
        """Judge the last extrapolation; record and extrapolate where a call is due."""
        allowed = self.safeguard * vector_norm(state.x - state.fx, dim=1)
        rejected = state.proposed & ~(vector_norm(at.residual, dim=1) <= allowed)
        x, fx = where_rows(rejected, state.x, at.x), where_rows(rejected, state.fx, at.fx)
        state = state._replace(
            calls=torch.where(rejected, 0, state.calls),
            seen=state.seen + 1,
            proposed=torch.zeros_like(state.proposed),
        )
        due = (state.seen + 1) % self.interval == 0
        if is_readable(due) and not bool(due.any()):
            return fx, state
        recorded = self._record(x, fx, state)
        full = due & (state.calls >= state.dx.shape[1])
        following, taken = fx, torch.zeros_like(full)
        if not is_readable(full) or bool(full.any()):
            following, taken = self._extrapolate(recorded, full)
        calls = torch.where(full & ~taken, 0, state.calls + 1)
        recorded = recorded._replace(calls=calls, proposed=taken)
        return following, ScsAndersonState(*(where_rows(due, n, o) for n, o in zip(recorded, state, strict=True)))

    def _record(self, x: Tensor, fx: Tensor, state: ScsAndersonState) -> ScsAndersonState:
        """The state with (x, f) as the last call and the difference to the one before in the memory's next slot.

        What the first call writes is no such difference; a full memory has written over it.
        """
        memory = state.dx.shape[1]
        here = (torch.arange(memory, device=x.device) == (state.calls % memory)[:, None])[:, :, None]
        dx, dg = x - state.x, (x - fx) - (state.x - state.fx)
        return state._replace(
            x=x,
            fx=fx,
            dx=torch.where(here, dx[:, None], state.dx),
            dg=torch.where(here, dg[:, None], state.dg),
        )

    def _extrapolate(self, state: ScsAndersonState, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """((B, n) next point, (B,) whether it is an extrapolation): f itself where not wanted or not usable."""
        moved = (state.dx != 0).flatten(1).any(1) & (state.dg != 0).flatten(1).any(1)
        good = (wanted & moved)[:, None, None]
        anything = torch.eye(*state.dx.shape[1:], dtype=state.dx.dtype, device=state.dx.device)
        dx, dg = torch.where(good, state.dx, anything), torch.where(good, state.dg, anything)
        g = state.x - state.fx
        gamma = self._weights(dx if self.kind == 1 else dg, dg, g)
        mixed = state.fx - combine(gamma, dx - dg)
        if self.relaxation != 1:
            mixed = mixed + (1 - self.relaxation) * (g - combine(gamma, dg))
        usable = (vector_norm(gamma, dim=1) < self.max_weight) & torch.isfinite(mixed).all(1)
        taken = wanted & moved & usable
        return where_rows(taken, mixed, state.fx), taken

    def _weights(self, left: Tensor, dg: Tensor, g: Tensor) -> Tensor:
        """(B, m) gamma with (X'Y + r I) gamma = X'g, from X' and Y' (B, m, n) and g (B, n).

        With Q R = [X; sqrt(r) I] it is (Q'B) gamma = Q'[g; 0], B = [Y; sqrt(r) I], and the condition number of X is not
        squared (SCS's refinement of gamma then changes nothing that could be measured).
        """
        ridge = self.regularization**0.5 * torch.sqrt(vector_norm(left, dim=(1, 2)) * vector_norm(dg, dim=(1, 2)))
        below = ridge[:, None, None] * torch.eye(dg.shape[1], dtype=dg.dtype, device=dg.device)
        q = qr(torch.cat([left, below], 2).mT)[0]
        columns = torch.cat([dg, below], 2).mT
        outer, upper = qr(q.mT @ columns)
        right = q[:, : g.shape[1]].mT @ g[:, :, None]
        return solve_triangular(upper, outer.mT @ right, upper=True)[:, :, 0]
