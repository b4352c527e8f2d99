"""Power cones and their duals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from maps.cones.calculus.roots import implicit_root, root_operation, unit_scale
from maps.cones.cone import Cone

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
        exponents = torch.tensor(self.exponents, dtype=torch.float64, device=z.device).repeat(
            len(z) // len(self.exponents)
        )
        dual, a = (exponents < 0)[:, None], exponents.abs()
        signed = torch.where(dual, -unit, unit)
        flat = (a == 0) | (a == 1)
        p = _curved(signed, torch.where(flat, 0.5, a))
        if any(abs(exponent) in (0, 1) for exponent in self.exponents):
            p = torch.where(flat[:, None], _degenerate(signed, a), p)
        return size * torch.where(dual, unit + p, p).to(z.dtype)


class Power(Powers):
    """{(x, y, z) : x^a y^(1-a) >= |z|, x, y >= 0} with exponent a; the dual of the cone of |a| for a < 0, as in SCS.

    Exponents 0 and 1 give {y >= |z|, x >= 0} and {x >= |z|, y >= 0}. The dual is
    {(u, v, w) : (u/a)^a (v/(1-a))^(1-a) >= |w|, u, v >= 0}.

    The nearest point has x replaced by (x + sqrt(x^2 + 4 a r (h - r))) / 2, y likewise with 1 - a, and |z| = h by the
    root r of x^a y^(1-a) = r (Hien, Differential properties of Euclidean projection onto power cone, 2015). Here
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
        return [cls(exponent) for exponent in (0.5, 0.2, 1.0, -0.9)]


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
    height = z.abs()
    inside = (x >= 0) & (y >= 0) & (x.relu() ** a * y.relu() ** (1 - a) >= height)
    polar = (x <= 0) & (y <= 0) & (((-x).relu() / a) ** a * ((-y).relu() / (1 - a)) ** (1 - a) >= height)
    level = z == 0
    # such rows compute the root of (1, 0, 1) instead, which keeps derivatives finite
    curved = ~(inside | polar | level)
    safe = (torch.where(curved, x, 1.0), torch.where(curved, y, 0.0), torch.where(curved, height, 1.0))
    p, q, r = _boundary(*safe, a)
    boundary = torch.stack([p, q, torch.where(z < 0, -r, r)], 1)
    boundary = torch.where(level[:, None], _level(x, y, z, a), boundary)
    return torch.where(inside[:, None], unit, torch.where(polar[:, None], 0.0, boundary))


def _level(x: Tensor, y: Tensor, z: Tensor, a: Tensor) -> Tensor:
    """(B, 3) to second order in z, where z = 0 and x and y differ in sign: the positive one stays, z becomes k z."""
    first = x > 0
    main, other, share = torch.where(first, x, y), torch.where(first, y, x), torch.where(first, a, 1 - a)
    main, other = torch.where(main > 0, main, 1.0), torch.where(other < 0, other, -1.0)
    k = torch.where(share < 0.5, 0.0, torch.where(share > 0.5, 1.0, main / (main - 2 * other)))
    bend = k * (1 - k) * z * z / 2
    main, other = main + bend / main, -bend / other
    return torch.stack([torch.where(first, main, other), torch.where(first, other, main), k * z], 1)


def _equation(u: Tensor, x: Tensor, y: Tensor, height: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of r / (x^a y^(1-a)), and its slope, in the form that is quickest."""
    b, stretch = 1 - a, torch.cosh(u) / height
    of_x, of_y = torch.asinh(x * stretch / torch.sqrt(a)), torch.asinh(y * stretch / torch.sqrt(b))
    value = u - (torch.xlogy(a, a) + torch.xlogy(b, b)) / 2 - a * of_x - b * of_y
    return value, 1 - torch.tanh(u) * (a * torch.tanh(of_x) + b * torch.tanh(of_y))


def _bounds(x: Tensor, y: Tensor, height: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(x, -SPAN), torch.full_like(x, SPAN)


_root = root_operation("power_cone_root", _equation, _bounds, arguments=4)


def _boundary(x: Tensor, y: Tensor, height: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X, y and |z| of the nearest points, where they are neither the points nor 0."""
    b, found = 1 - a, _root(x, y, height, a)
    side = torch.where(found < 0, -1.0, 1.0)

    def widths(u: Tensor) -> tuple[Tensor, Tensor]:
        """2 sqrt(a r (h - r)) and 2 sqrt(b r (h - r))."""
        spread = height / torch.cosh(u)
        return torch.sqrt(a) * spread, torch.sqrt(b) * spread

    def equation(u: Tensor) -> Tensor:
        """The same up to a constant, from whichever has more of z, the nearest point or the rest: with all digits."""
        of_x, of_y = widths(u)
        product = a * torch.log(_larger(side * x, of_x)) + b * torch.log(_larger(side * y, of_y))
        return side * (torch.log(height) + logsigmoid(2 * side * u) - product)

    of_x, of_y = widths(found)
    rest = a * _larger(-side * x, of_x) / torch.hypot(x, of_x) + b * _larger(-side * y, of_y) / torch.hypot(y, of_y)
    slope = 2 * torch.sigmoid(-2 * found.abs()) + 2 * torch.tanh(found.abs()) * rest
    u = implicit_root(found, equation, slope)
    of_x, of_y = widths(u)
    share = height * torch.sigmoid(-2 * side * u)  # the smaller of r and h - r: it must not be a difference
    return _larger(x, of_x), _larger(y, of_y), torch.where(found < 0, share, height - share)


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
