"""Spaces of settings that may be tuned, and reading a point of them off the unit interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, optionally on a log scale or whole.

    Raises:
        ValueError: low is not below high, or a log range that does not start above 0.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"range: expected low < high (and 0 < low on a log scale), got {self}")

    def at(self, unit: float) -> float | int:
        """The setting at `unit` in [0, 1]."""
        if self.log:
            value = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + unit * (self.high - self.low)
        return round(value) if self.integer else float(f"{value:.6g}")

    def unit(self, value: float) -> float:
        """The inverse of `at`, clipped to [0, 1]."""
        low, high, value = (math.log(max(v, 1e-300)) if self.log else v for v in (self.low, self.high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def at(self, unit: float) -> Any:
        """The setting at `unit` in [0, 1]."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def unit(self, value: Any) -> float:
        """The middle of the part of [0, 1] that gives `value`."""
        return (self.values.index(value) + 0.5) / len(self.values)


SearchSpace = Range | Choice
