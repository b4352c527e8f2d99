"""Arguments checked at the door: errors that name the argument and what was expected."""

from __future__ import annotations

import numbers


def require_whole(**values: object) -> None:
    """Raise ValueError, naming the argument, for what is no whole number >= 1; NumPy's whole numbers are."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")
        if value < 1:
            raise ValueError(f"{name}: expected a whole number >= 1, got {value}")
