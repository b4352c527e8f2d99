"""Where the time of the loop goes: a map and an accelerator that are timed as they run."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solution import Evaluation


class Clock:
    """Adds up the seconds spent in one part of the loop."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Any) -> Any:
        """The function, on the clock."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        return call


class TimedMap(FixedPointMap[Any, Any]):
    """A map that reports where its time goes."""

    def __init__(self, map: FixedPointMap[Any, Any], setup: Clock, run: Clock) -> None:
        self.signature, self.inner = map.signature, map
        self.ranks = map.ranks  # type: ignore[misc]
        for name in ("setup", "featurize", "metric", "initial"):
            setattr(self, name, setup.timed(getattr(map, name)))
        for name in ("retract", "evaluate", "assess", "output"):
            setattr(self, name, run.timed(getattr(map, name)))

    def initial(self, context: Any) -> Tensor:
        """See `FixedPointMap.initial`."""
        raise NotImplementedError  # replaced above

    def forward(self, x: Tensor, context: Any) -> Tensor:
        """See `FixedPointMap.forward`; not timed, `evaluate` is."""
        return self.inner.forward(x, context)


class TimedAccelerator(Accelerator):
    """An accelerator that reports its time."""

    def __init__(self, accelerator: Accelerator, clock: Clock) -> None:
        self.uses_features = accelerator.uses_features
        for name in ("init", "step"):
            setattr(self, name, clock.timed(getattr(accelerator, name)))

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Any]:
        """See `Accelerator.init`."""
        raise NotImplementedError  # replaced above

    def step(self, at: Evaluation, state: Any) -> tuple[Tensor, Any]:
        """See `Accelerator.step`."""
        raise NotImplementedError  # replaced above
