"""Which strategy `gradient=` names: a new one is one file and one line here."""

from __future__ import annotations

from typing import Any, Literal

from fixedpoint.gradients.implicit import Implicit, Undifferentiated
from fixedpoint.gradients.strategy import GradientStrategy
from fixedpoint.gradients.unrolled import Unrolled

Gradient = Literal["unroll", "implicit"] | GradientStrategy | None

STRATEGIES: dict[str | None, type[GradientStrategy]] = {
    None: Undifferentiated,
    "implicit": Implicit,
    "unroll": Unrolled,
}


def strategy(gradient: Any) -> GradientStrategy:
    """The strategy that was named, or given as an object.

    Raises:
        ValueError: an unknown one.
    """
    if isinstance(gradient, GradientStrategy):
        return gradient
    if gradient is None or (isinstance(gradient, str) and gradient in STRATEGIES):
        return STRATEGIES[gradient]()
    raise ValueError(f'gradient: expected None, "implicit", "unroll" or Truncated(steps), got {gradient!r}')
