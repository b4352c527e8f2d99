"""What a training run is asked to do: one flat, JSON-able record, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fixedpoint.learning.losses import LOSSES

WEIGHTS = {
    "late": "zero in the first half of the horizon, then equal: buys final accuracy",
    "even": "all steps alike: buys early error and loses late accuracy",
    "last": "the last step only",
}


@dataclass(frozen=True)
class Plan:
    """The arguments of a training run, apart from family and accelerator.

    Raises:
        ValueError: a value out of range; the message names it.
    """

    loss: str = "log-error"
    """One of `fixedpoint.learning.losses.LOSSES`."""
    weights: str = "late"
    """How the steps of an unrolled iteration are weighted: one of `WEIGHTS`."""
    horizon: int = 20
    """Evaluations that are unrolled, at the end of the curriculum."""
    first_horizon: int | None = None
    """Evaluations that are unrolled at first; None: half the horizon. It grows over the first half of the run."""
    window: int | None = None
    """Evaluations after which the gradient is cut (truncated backpropagation), each window with a backward pass of its
    own; None: the whole horizon is one window."""
    checkpoint: bool = False
    """Compute every round again in the backward pass instead of keeping it: less memory, a third more time."""
    updates: int = 500
    """Steps of the optimiser (Adam)."""
    batch: int = 32
    """Instances in each."""
    instances: int = 500
    """Training instances, all drawn before the first update."""
    learning_rate: float = 1e-3
    """At first; it falls to 2% of that along a cosine."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    floor: float = 1e-6
    """Errors below count as this in logarithmic losses: nothing is earned beyond."""
    validation: int = 64
    """Validation instances."""
    validate_every: int = 50
    """Updates between validations."""
    evaluations: int = 50
    """Evaluations of a validation."""
    patience: int | None = None
    """Validations without a better score after which the run stops early; None: it never does."""
    keep: str = "best"
    """Which weights are the result: those of the "best" validation, or the "last" (where the loss asks for something
    else than evaluations to 1e-3)."""
    seed: int = 0
    """Of instances and batches."""

    def __post_init__(self) -> None:
        for name, known in (("loss", LOSSES), ("weights", WEIGHTS), ("keep", ("best", "last"))):
            if getattr(self, name) not in tuple(known):
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        counts = ("horizon", "first_horizon", "window", "updates", "batch", "instances")
        counts += ("validation", "validate_every", "evaluations", "patience")  # type: ignore[assignment]
        for name in counts:
            value = getattr(self, name)
            optional = name in ("first_horizon", "window", "patience")
            if not (value is None and optional) and not _is_count(value):
                raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")
        for name in ("learning_rate", "clip", "floor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {value!r}")
        if not isinstance(self.checkpoint, bool):
            raise ValueError(f"checkpoint: expected True or False, got {self.checkpoint!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed: expected a whole number >= 0, got {self.seed!r}")
        if self.first_horizon is not None and self.first_horizon > self.horizon:
            raise ValueError(f"first_horizon: expected at most the horizon, {self.horizon}, got {self.first_horizon}")
        if self.batch > self.instances:
            raise ValueError(f"batch: expected at most the {self.instances} training instances, got {self.batch}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    def horizon_at(self, update: int) -> int:
        """Evaluations to unroll in an update (from 0): the curriculum."""
        first = self.first_horizon or max(1, self.horizon // 2)
        share = min(1.0, 2 * update / self.updates)
        return round(first + share * (self.horizon - first))

    def learning_rate_at(self, update: int) -> float:
        """A cosine from the learning rate to 2% of it, after a short rise."""
        rise = min(1.0, (update + 1) / max(1, min(20, self.updates // 10)))
        cosine = 0.5 * (1 + math.cos(math.pi * update / self.updates))
        return self.learning_rate * rise * (0.02 + 0.98 * cosine)

    def weights_at(self, horizon: int) -> list[float]:
        """The weight of each of `horizon` steps; they add up to 1."""
        first = {"late": horizon // 2, "even": 0, "last": horizon - 1}[self.weights]
        return [0.0 if step < first else 1 / (horizon - first) for step in range(horizon)]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
