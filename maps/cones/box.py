"""The cone over a box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maps.cones.cone import Cone

INFINITE = 1e15
"""Bounds of at least this size are infinite, as in SCS."""


class Box(Cone):
    """{(t, s) : t lower <= s <= t upper, t >= 0}, closed: a bound that is infinite is none.

    The projection is the root of a piecewise linear, increasing function of t, found exactly from the order of its
    breaks; with the active bounds known it is linear.

    Args:
        lower, upper: of the entries of s, lower <= upper; `dim` is 1 + their number.

    Raises:
        ValueError: lengths that differ, NaN, or bounds that cross (the message has the index).
    """

    separable = True

    def __init__(self, lower: Sequence[float], upper: Sequence[float]) -> None:
        self.lower, self.upper = [float(v) for v in lower], [float(v) for v in upper]
        check_bounds("lower", self.lower, "upper", self.upper)
        super().__init__(1 + len(self.lower))
        bounds = torch.tensor([self.lower, self.upper], dtype=torch.float64, device="cpu")
        self.bounds = torch.where(bounds.abs() >= INFINITE, bounds.sign() * torch.inf, bounds)
        """(2, k) lower and upper; infinite ones are inf."""

    @classmethod
    def examples(cls) -> list[Cone]:
        """No entries, one-sided bounds, none, equal ones, bounds of one sign."""
        inf = math.inf
        return [cls([], []), cls([-1.0], [2.0]), cls([0.0, -inf, -inf], [inf, 1.0, inf]), cls([0.5, -2.0], [0.5, -1.0])]

    def rescaled(self, d: Tensor) -> Tensor:
        """(B, 1 + k) positive row scalings -> (B, 2, k) the bounds of the scaled cone's boxes, for `project`."""
        return self.bounds.to(d) * (d[:, 1:] / d[:, :1])[:, None]

    def project(self, z: Tensor, bounds: Tensor | None = None) -> Tensor:
        """The nearest point of the cone.

        Args:
            z: (B, 1 + k).
            bounds: (B, 2, k) lower and upper bounds instead of the cone's own.
        """
        lower, upper = (self.bounds.to(z)[None] if bounds is None else bounds).unbind(1)
        t, s = z[:, :1], z[:, 1:]
        root, fixed = _root(t.detach(), s.detach(), lower, upper).relu(), s.detach()
        least, most = _times(lower, root), _times(upper, root)
        below = (fixed < least) & torch.isfinite(lower)
        pinched = torch.isfinite(lower) & torch.isfinite(upper) & (least == most)  # s cannot move even where it fits
        above = ((fixed > most) & torch.isfinite(upper)) | (pinched & ~below)
        active = torch.where(above, upper, torch.where(below, lower, 0.0))
        t = ((t + (active * s).sum(1, keepdim=True)) / (1 + (active * active).sum(1, keepdim=True))).relu()
        return torch.cat([t, torch.where(above | below, active * t, s)], 1)

    def project_dual(self, z: Tensor, bounds: Tensor | None = None) -> Tensor:
        """The nearest point of the dual cone; arguments as `project`."""
        return z + self.project(-z, bounds)


def check_bounds(lower_name: str, lower: Sequence[float], upper_name: str, upper: Sequence[float]) -> None:
    """Refuse bounds that make no box.

    Raises:
        ValueError: lengths that differ, NaN, or bounds that cross; the message begins with a name.
    """
    if len(lower) != len(upper):
        raise ValueError(f"{lower_name}: expected as many bounds as {upper_name}, {len(upper)}, got {len(lower)}")
    for index, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if not low <= high or low == math.inf or high == -math.inf:
            raise ValueError(
                f"{lower_name}: expected at most {upper_name} at index {index}, got {low!r} against {high!r}"
            )


def _times(bound: Tensor, t: Tensor) -> Tensor:
    """Bound times t, 0 for infinite bounds."""
    return torch.where(torch.isfinite(bound), bound, 0.0) * t


def _root(t: Tensor, s: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """(B, 1) the root of r - t + sum over violated bounds b of b (b r - s), increasing and piecewise linear in r.

    The bound b of s is violated on one side of the break r = s / b. The values at all breaks, from sums over those
    before and those after, tell which side of each the root is on.
    """
    b = torch.cat([upper.expand_as(s), lower.expand_as(s)], 1)
    counted = torch.isfinite(b) & (b != 0)
    b = torch.where(counted, b, 1.0)
    below = (b > 0) == (torch.arange(b.shape[1], device=b.device) < s.shape[1])  # violated for r below the break
    breaks, order = (s.repeat(1, 2) / b).sort(1)
    weight, below = torch.where(counted, b * b, 0.0).gather(1, order), below.gather(1, order)
    falling, rising = torch.where(below, weight, 0.0), torch.where(below, 0.0, weight)
    after = breaks * _reversed_sums(falling) - _reversed_sums(falling * breaks)
    before = breaks * rising.cumsum(1) - (rising * breaks).cumsum(1)
    violated = torch.where(breaks - t + after + before < 0, rising, falling)
    return (t + (violated * breaks).sum(1, keepdim=True)) / (1 + violated.sum(1, keepdim=True))


def _reversed_sums(values: Tensor) -> Tensor:
    """Sums over an entry and those after it."""
    return values.flip(1).cumsum(1).flip(1)
