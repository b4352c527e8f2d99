"""The exponential cone."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from maps.cones.calculus.roots import implicit_root, root_operation, unit_scale
from maps.cones.cone import Cone

FLAT = 40.0
"""Where exponents are beyond -40 the cone is {x <= 0 <= y, z >= 0} to working precision (float64)."""


class Exponential(Cone):
    """cl {(x, y, z) : y > 0, y e^(x/y) <= z}, which adds the face x <= 0, y = 0, z >= 0.

    A point outside of the cone and of its polar is alpha (rho, 1, e^rho) + beta (1, 1 - rho, -e^-rho): its projections
    onto the two, rho being the root of an increasing function (Friberg, Projection onto the exponential cone: a
    univariate root-finding problem, 2023).
    """

    def __init__(self) -> None:
        super().__init__(3)

    @classmethod
    def examples(cls) -> list[Cone]:
        """The only one."""
        return [cls()]

    def project(self, z: Tensor) -> Tensor:
        """The nearest point of the cone."""
        size, unit = unit_scale(z)
        x, y, w = unit.unbind(1)
        inside = (y > 0) & (_raised(y, x) <= w)
        polar = (x > 0) & (_raised(x, y) <= -math.e * w)
        flat = y <= torch.where(x > 0, (1 - FLAT) * x, -x / FLAT)
        curved = ~(inside | polar | flat)
        # the other rows compute the root of (1, 1, 0) instead, which keeps derivatives finite
        p = _boundary(torch.where(curved, x, 1.0), torch.where(curved, y, 1.0), torch.where(curved, w, 0.0))
        p = torch.where(flat[:, None], torch.stack([x.clamp(max=0.0), y.relu(), w.relu()], 1), p)
        p = torch.where(inside[:, None], unit, torch.where(polar[:, None], 0.0, p))
        return size * p.to(z.dtype)


class _Rays(NamedTuple):
    """The two parts of a point, from x and y, for some rho."""

    alpha: Tensor
    beta: Tensor
    gap: Tensor
    """What is missing in the third coordinate, times e^-|rho|."""
    slope: Tensor
    """d gap / d rho where the gap is 0; positive between the bounds."""


def _rays(rho: Tensor, x: Tensor, y: Tensor, w: Tensor) -> _Rays:
    norm = rho * (rho - 1) + 1
    alpha, beta = (y + (rho - 1) * x) / norm, (x - rho * y) / norm
    small = torch.exp(-rho.abs())
    up, down = torch.where(rho > 0, 1.0, small * small), torch.where(rho > 0, small * small, 1.0)
    slope = up * (beta + alpha * ((rho - 1) ** 2 + 1)) + down * (alpha + beta * (rho * rho + 1))
    return _Rays(alpha, beta, up * alpha - small * w - down * beta, slope / norm)


def _bounds(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Between these alpha and beta are positive, and exponentials no larger than numbers of size 1 ask for."""
    ratio, inverse = x / _positive(y), y / _positive(x)
    least = torch.where(y > 0, torch.minimum(ratio - 1, -2 * torch.log(20 / _positive(y))), -torch.inf)
    most = torch.where(x > 0, torch.maximum(2 - inverse, 2 * torch.log(20 / _positive(x))), torch.inf)
    low = torch.maximum(least, torch.where(x > 0, 1 - inverse, -torch.inf))
    return low, torch.minimum(most, torch.where(y > 0, ratio, torch.inf))


def _equation(rho: Tensor, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The gap, relative to its terms at the root, and its slope."""
    rays, size = _rays(rho, x, y, w), torch.maximum(x.abs(), y.abs())
    return rays.gap / size, rays.slope / size


_root = root_operation("exponential_cone_root", _equation, _bounds, arguments=3)


def _boundary(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """(B, 3) the nearest points, where they are on the curved part of the boundary."""
    found = _root(x, y, w)
    rho = implicit_root(found, lambda rho: _rays(rho, x, y, w).gap, _rays(found, x, y, w).slope)
    alpha, beta, _, _ = _rays(rho, x, y, w)
    right = found > 0
    small = torch.exp(torch.where(right, -rho, rho))
    # of w + beta e^-rho = alpha e^rho the side that does not amplify round-off
    return torch.stack([alpha * rho, alpha, torch.where(right, w + beta * small, alpha * small)], 1)


def _raised(a: Tensor, b: Tensor) -> Tensor:
    """A e^(b/a) where a > 0."""
    return a * torch.exp((b / _positive(a)).clamp(max=700.0))


def _positive(t: Tensor) -> Tensor:
    """T, and 1 where it is not positive."""
    return torch.where(t > 0, t, 1.0)
