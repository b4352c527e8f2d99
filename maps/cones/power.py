"""Power cones and their duals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from maps.cones.cone import Cone
from maps.cones.roots import implicit_root, root_operation, unit_scale

TINY = 1e-60
"""|z| is at least this, relative to the rest: an equation in logarithms needs it positive."""
SPAN = 200.0
"""Bound of the root: e^-400 is nothing."""


class Powers(Cone):
    """Power cones whose exponents differ, taken in turn: row i of a batch is for exponent i modulo their number."""

    def __init__(self, exponents: Sequence[float]) -> None:
        super().__init__(3)
        self.exponents = [checked_exponent("exponents", exponent) for exponent in exponents]

    def project(self, z: Tensor) -> Tensor:
        """The nearest points of the cones."""
        size, unit = unit_scale(z)
        repeats = len(z) // len(self.exponents)
        a = torch.tensor(self.exponents, dtype=torch.float64, device=z.device).repeat(repeats)
        dual, a = (a < 0)[:, None], a.abs()
        signed = torch.where(dual, -unit, unit)
        p = _curved(signed, torch.where((a == 0) | (a == 1), 0.5, a))
        p = torch.where(((a == 0) | (a == 1))[:, None], _degenerate(signed, a), p)
        return size * torch.where(dual, unit + p, p).to(z.dtype)


class Power(Powers):
    """{(x, y, z) : x^a y^(1-a) >= |z|, x, y >= 0} with exponent a; the dual of the cone of |a| for a < 0, as in SCS.

    Exponents 0 and 1 give {y >= |z|, x >= 0} and {x >= |z|, y >= 0}. The dual is
    {(u, v, w) : (u/a)^a (v/(1-a))^(1-a) >= |w|, u, v >= 0}.

    The nearest point has x replaced by (x + sqrt(x^2 + 4 a r (h - r))) / 2, y likewise with 1 - a, and |z| = h by the root
    r of x^a y^(1-a) = r (Hien, Differential properties of Euclidean projection onto power cone, 2015). Here
    r = h / (1 + e^-2u): the logarithm of that equation is increasing in u, with a slope of at most 2.

    Args:
        exponent: between -1 and 1.

    Raises:
        ValueError: another exponent.
    """

    def __init__(self, exponent: float) -> None:
        super().__init__([checked_exponent("exponent", exponent)])
        self.exponent = self.exponents[0]

    @classmethod
    def examples(cls) -> list[Cone]:
        """Symmetric and not, degenerate, a dual."""
        return [cls(exponent) for exponent in (0.5, 0.2, 0.9, 1.0, -0.3)]


def checked_exponent(name: str, value: float) -> float:
    """An exponent as a float.

    Raises:
        ValueError: it is not between -1 and 1; the message begins with `name`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise ValueError(f"{name}: expected a number between -1 and 1, got {value!r}")
    return float(value)


def _curved(unit: Tensor, a: Tensor) -> Tensor:
    """Rows of size 1 onto cones with exponents strictly between 0 and 1."""
    x, y, z = unit.unbind(1)
    sign = torch.where(z < 0, -1.0, 1.0)
    height = sign * z
    inside = (x >= 0) & (y >= 0) & (x.relu() ** a * y.relu() ** (1 - a) >= height)
    polar = (x <= 0) & (y <= 0) & (((-x).relu() / a) ** a * ((-y).relu() / (1 - a)) ** (1 - a) >= height)
    curved = ~(inside | polar)
    # the other rows compute the root of (1, 0, 1) instead, which keeps derivatives finite
    height = torch.where(curved, height, 1.0)
    height = height + (height.clamp(min=TINY) - height).detach()
    p, q, r = _boundary(torch.where(curved, x, 1.0), torch.where(curved, y, 0.0), height, a)
    boundary = torch.stack([p, q, sign * r], 1)
    return torch.where(inside[:, None], unit, torch.where(polar[:, None], 0.0, boundary))


class _Terms(NamedTuple):
    """The equation of a power cone's projection and what it is made of, for some u."""

    value: Tensor
    slope: Tensor
    """Between 0 and 2."""
    of_x: Tensor
    """2 sqrt(a r (h - r)), with h = |z| of the point and r = |z| of its projection."""
    of_y: Tensor
    """2 sqrt((1 - a) r (h - r))."""


def _terms(u: Tensor, x: Tensor, y: Tensor, height: Tensor, a: Tensor) -> _Terms:
    b, side = 1 - a, torch.where(u < 0, -1.0, 1.0)
    spread = height / torch.cosh(u)
    of_x, of_y = torch.sqrt(a) * spread, torch.sqrt(b) * spread
    # the boundary equation of the part that has the larger share of z, the projection or what is left; for either part
    # alone the other's digits would be lost
    product = a * torch.log(_larger(side * x, of_x)) + b * torch.log(_larger(side * y, of_y))
    entropy = -torch.xlogy(a, a) - torch.xlogy(b, b)
    value = side * (torch.log(height) + logsigmoid(2 * u.abs()) - product) + torch.where(u < 0, entropy, 0.0)
    rest = a * _larger(-side * x, of_x) / torch.hypot(x, of_x) + b * _larger(-side * y, of_y) / torch.hypot(y, of_y)
    return _Terms(value, 2 * torch.sigmoid(-2 * u.abs()) + 2 * torch.tanh(u.abs()) * rest, of_x, of_y)


def _bounds(x: Tensor, y: Tensor, height: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(x, -SPAN), torch.full_like(x, SPAN)


_root = root_operation("power_cone_root", lambda *data: _terms(*data)[:2], _bounds, arguments=4)


def _boundary(x: Tensor, y: Tensor, height: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X, y and |z| of the nearest points, where they are neither the points nor 0."""
    found = _root(x, y, height, a)
    u = implicit_root(found, lambda u: _terms(u, x, y, height, a).value, _terms(found, x, y, height, a).slope)
    _, _, of_x, of_y = _terms(u, x, y, height, a)
    share = torch.sigmoid(-2 * u.abs())  # of the smaller of r and h - r: neither must be a difference
    return _larger(x, of_x), _larger(y, of_y), torch.where(found > 0, height - height * share, height * share)


def _larger(x: Tensor, v: Tensor) -> Tensor:
    """(x + sqrt(x^2 + v^2)) / 2 for v > 0, without cancellation."""
    root = torch.hypot(x, v)
    negative = x < 0
    return torch.where(negative, v * (v / torch.where(negative, root - x, 1.0)), x + root) / 2


def _degenerate(unit: Tensor, a: Tensor) -> Tensor:
    """Exponents 0 and 1: a quadrant, turned by 45 degrees, for z and one of x and y, and a half line for the other."""
    x, y, z = unit.unbind(1)
    first = a == 1
    against, other = torch.where(first, x, y), torch.where(first, y, x).relu()
    plus, minus = (against + z).relu() / 2, (against - z).relu() / 2
    p = plus + minus
    return torch.stack([torch.where(first, p, other), torch.where(first, other, p), plus - minus], 1)
