"""Property tests for cones: every law of a projection as a named check, without pytest or inside it.

`check_cone(MyCone(3))` raises CheckFailed, naming the laws that do not hold, the smallest counterexamples found and the
probable mistakes; `points` are the strategy behind them, for properties of your own. Needs hypothesis, which is loaded
when something is checked and not before: `pip install "fixedpoint-acceleration[check]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maps.cones.checks.checker import CONE_CHECKS, check_cone

if TYPE_CHECKING:
    from maps.cones.checks.strategies import points

__all__ = ["CONE_CHECKS", "check_cone", "points"]


def __getattr__(name: str) -> Any:
    if name == "points":
        from maps.cones.checks.strategies import points

        return points
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
