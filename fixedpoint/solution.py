"""What goes into and comes out of the loop: evaluations, statuses, solutions, trajectories."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class Status(enum.IntEnum):
    """How one instance ended. Tensors of statuses hold these integers, so `status == Status.CONVERGED` works."""

    RUNNING = 0
    """Not decided yet; only a callback or an `Assessment` sees it."""
    CONVERGED = 1
    """The residual fell to the tolerance."""
    MAX_EVALUATIONS = 2
    """The budget ran out (or a callback asked to stop) first."""
    STALLED = 3
    """No further: f(x) = x to working precision (in the map's metric) although the residual is above the tolerance, or
    a claim that did not hold when it was computed again."""
    DIVERGED = 4
    """A non-finite number appeared."""
    PRIMAL_INFEASIBLE = 5
    """The map holds a certificate that no feasible point exists."""
    DUAL_INFEASIBLE = 6
    """The map holds a certificate that the objective is unbounded."""
    INVALID = 7
    """The instance's data cannot be used (`on_invalid="mark"`); its numbers are NaN."""
    TIME_LIMIT = 8
    """The time was up first."""


class Evaluation(NamedTuple):
    """One evaluation of the map: everything an accelerator ever sees of it."""

    x: Tensor
    """(B, n) the point."""
    fx: Tensor
    """(B, n) f(x)."""
    residual: Tensor
    """(B, n) f(x) - x, undamped."""


class Assessment(NamedTuple):
    """A map's judgement of an evaluation."""

    residual: Tensor
    """(B,) nonnegative; an instance converges when it is at most the tolerance. inf: it must not converge here."""
    status: Tensor
    """(B,) `Status` integers: RUNNING, or a verdict that only the map can reach: PRIMAL_INFEASIBLE or DUAL_INFEASIBLE,
    which stand when two checks in a row agree (acceleration makes transient certificates)."""


class Check(NamedTuple):
    """What `adapt` is told of the check that it follows."""

    assessment: Assessment
    """As the map's `assess` returned it: a map may return one that holds more, so that nothing is computed twice."""
    evaluations: int
    """Since the check before."""


class Adaptation(NamedTuple):
    """A context that changed between two evaluations, and the last evaluation in its terms."""

    context: Any
    x: Tensor
    """(B, n) the point last evaluated, in the new coordinates."""
    fx: Tensor
    """(B, n) the map's value there."""
    changed: Tensor | None
    """(B,) bool, the instances whose coordinates changed: the accelerator begins anew there. None: those of nobody."""


class Progress(NamedTuple):
    """What `callback` receives after every check; arrays cover the whole batch, finished rows included."""

    evaluations: int
    residual: Tensor
    """(B,) the latest residual of each instance."""
    status: Tensor
    """(B,) RUNNING, or how the instance ended."""


@dataclass(frozen=True)
class Solution:
    """The result of `fixedpoint.solve`. For a single problem (no batch axis) every B below is absent."""

    x: Tensor
    """(B, n) the point that was evaluated last; `residual` is its own. NaN where INVALID."""
    output: Any
    """What the map's `output` makes of it (by default f(x), shape (B, n)); NaN where INVALID."""
    residual: Tensor
    """(B,) the map's residual at `x`, undamped."""
    status: Tensor
    """(B,) `Status` integers."""
    evaluations: Tensor
    """(B,) int64, evaluations of the map that each instance took (those of a backward pass not included)."""

    @property
    def statuses(self) -> list[Status]:
        """The statuses as a list of `Status` (one entry for a single problem)."""
        return [Status(int(s)) for s in self.status.reshape(-1)]

    @property
    def converged(self) -> Tensor:
        """(B,) bool."""
        return self.status == Status.CONVERGED


class Trajectory(NamedTuple):
    """Every evaluation of `fixedpoint.unroll`; T is the number of steps."""

    x: Tensor
    """(T, B, n) the points evaluated."""
    fx: Tensor
    """(T, B, n) the map's value there."""
    residual: Tensor
    """(T, B) the map's residual."""
    output: Any
    """The map's output after each evaluation, every tensor with a leading T axis."""
