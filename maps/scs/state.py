"""What passes between the methods of the SCS map: points, by-products, the prepared batch."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from maps.scs.adaptive import ScaleHistory
from maps.scs.linear_systems import LinearSystem
from maps.scs.scaling import Data, Scaling
from maps.scs.termination import Units, Weights


class ConicPoint(NamedTuple):
    """A primal-dual point of a cone program, in its original units."""

    x: Tensor
    """(B, n)"""
    y: Tensor
    """(B, m) in K*"""
    s: Tensor
    """(B, m) in K"""


class Inner(NamedTuple):
    """By-products of a step: what x, y, s and tau are read from. R (u - z) is (0, s, kappa)."""

    u: Tensor
    """(B, l) the projection of z: (x, y, tau)."""
    z: Tensor
    """(B, l) 2 u~ - v."""


class Rows(NamedTuple):
    """What belongs to single instances; None where the batch shares it or there is none."""

    data: Data
    """Scaled; A and P are placeholders without entries here when the batch shares them."""
    scaling: Scaling
    units: Units
    system: LinearSystem | None
    g: Tensor
    """(B, n + m) K^{-1} (c, -b)."""
    weighted: Tensor
    """(B, n + m) R g."""
    curvature: Tensor
    """(B, 1) tau_factor + g'R g."""
    R: Tensor | None
    """(B, l)"""
    bounds: Tensor | None
    """(B, 2, k) of the box, scaled."""
    weights: Weights
    history: ScaleHistory | None


class Shared(NamedTuple):
    """What the whole batch uses; None where every instance has its own."""

    solver: str
    """The kind of linear system."""
    A: Any = None
    P: Any = None
    system: LinearSystem | None = None
    R: Tensor | None = None
    """(l,)"""
