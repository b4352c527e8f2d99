"""The plain iteration x <- f(x): what every other accelerator is measured against."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fixedpoint import Accelerator, Evaluation


class PicardState(NamedTuple):
    """The plain iteration remembers nothing."""


class Picard(Accelerator):
    """Plain iteration: next x = f(x)."""

    uses_features = False

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, PicardState]:
        """Start at x0."""
        return x0, PicardState()

    def step(self, at: Evaluation, state: PicardState) -> tuple[Tensor, PicardState]:
        """Next x = f(x)."""
        return at.fx, state
