"""When a solve looks at its instances, and when one of them is done."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fixedpoint.checked import require_whole
from fixedpoint.solution import Assessment, Evaluation, Progress, Status
from fixedpoint.tensors.masks import finite_rows

Callback = Callable[[Progress], Any]


@dataclass(frozen=True)
class Stopping:
    """The stopping rule of a solve: what the caller chose, and what follows from it.

    Raises:
        ValueError: a number outside its range; the message names it.
        TypeError: a callback that cannot be called.
    """

    tolerance: float = 1e-6
    """An instance converges when the map's residual is at most this; 0 uses the whole budget."""
    max_evaluations: int = 1000
    """Most evaluations of the map per instance."""
    time_limit: float | None = None
    """Seconds from `begun` on after which no instance is evaluated again; None: no limit."""
    check_interval: int = 1
    """Evaluations from one check (assess, then adapt) to the next."""
    first_check: int | None = None
    """The evaluation that is checked first, where it is known that none before it suffices; None: `check_interval`."""
    callback: Callback | None = None
    """Called with a `Progress` after every check; a true return value stops the solve."""
    deadline: float = math.inf
    """The moment (`time.monotonic`, which all processes share) at which the time is up; set by `begun`."""

    def __post_init__(self) -> None:
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, numbers.Real):
            raise ValueError(f"tolerance: expected a number, got {self.tolerance!r}")
        if not math.isfinite(self.tolerance) or self.tolerance < 0:
            raise ValueError(f"tolerance: expected a number >= 0, got {self.tolerance!r}")
        for name in ("max_evaluations", "check_interval", "first_check"):
            value = getattr(self, name)
            if name != "first_check" or value is not None:
                require_whole(**{name: value})
                object.__setattr__(self, name, int(value))
        limit = self.time_limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, numbers.Real) or not limit > 0):
            raise ValueError(f"time_limit: expected seconds > 0 or None, got {limit!r}")
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback: expected a function of a Progress or None, got {self.callback!r}")

    def check_reachable(self, dtype: torch.dtype) -> None:
        """Refuse a tolerance that numbers of a dtype cannot tell from 0.

        Raises:
            ValueError: it is between 0 and four times the dtype's precision.
        """
        floor = 4 * torch.finfo(dtype).eps
        if 0 < self.tolerance < floor:
            raise ValueError(
                f"tolerance: expected at least {floor:.1e} for {dtype} (or 0 to use the whole budget), "
                f"got {self.tolerance!r}"
            )

    def begun(self) -> Stopping:
        """The rule with its clock running; one that runs goes on."""
        if self.time_limit is None or self.deadline < math.inf:
            return self
        return replace(self, deadline=time.monotonic() + self.time_limit)

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return self.deadline < math.inf and time.monotonic() >= self.deadline

    @property
    def exhausted(self) -> Status:
        """What an instance is that was not done when the solve ended."""
        return Status.TIME_LIMIT if self.expired else Status.MAX_EVALUATIONS

    def due(self, count: int) -> tuple[bool, bool]:
        """(whether instances are looked at after so many evaluations, whether none follows)."""
        last = count >= self.max_evaluations or (self.deadline < math.inf and self.expired)
        first = self.check_interval if self.first_check is None else self.first_check
        return last or (count >= first and (count - first) % self.check_interval == 0), last

    def verdict(self, at: Evaluation, assessment: Assessment, claimed: Tensor, metric: Tensor | None) -> Tensor:
        """(B,) status after a check; non-finite numbers outrank everything else.

        Args:
            at: the evaluation.
            assessment: the map's judgement of it.
            claimed: (B,) the map's verdicts at the check before: one that is not repeated does not stand.
            metric: (B, n) of the map, or None: whether a point stands still is measured in it.
        """
        residual, status = assessment
        finite = finite_rows(at.fx) & ~torch.isnan(residual)
        eps = torch.finfo(at.x.dtype).eps
        size, step = (_length(t, metric) for t in (at.x, at.residual))
        still = (step <= 2 * eps * size) & torch.isfinite(size)  # the norm of finite numbers may overflow
        stalled = (status == Status.RUNNING) & still & (self.tolerance > 0)
        status = torch.where(status == claimed, status, Status.RUNNING)
        status = torch.where(stalled, Status.STALLED, status)
        status = torch.where(residual <= self.tolerance, Status.CONVERGED, status)
        return torch.where(finite, status, Status.DIVERGED)


def _length(t: Tensor, metric: Tensor | None) -> Tensor:
    """(B,) of the rows."""
    return torch.linalg.vector_norm(t, dim=1) if metric is None else (metric * t * t).sum(1).sqrt()
