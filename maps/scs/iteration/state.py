"""What passes between the methods of the SCS map: points, by-products, the prepared batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maps.scs.iteration.adaptive_scale import ScaleHistory
from maps.scs.iteration.equilibration import Data, Scaling
from maps.scs.iteration.residuals import CertificateScale, Unscaling
from maps.scs.linear_systems import LinearSolver, LinearSystem

TAU_FLOOR = 1e-12
"""A solution divides by tau: below this share of the state's size there is none to speak of."""


class ConicPoint(NamedTuple):
    """A primal-dual point of a cone program, in its original units."""

    x: Tensor
    """(B, n)"""
    y: Tensor
    """(B, m) in K*"""
    s: Tensor
    """(B, m) in K"""


class InnerPoint(NamedTuple):
    """By-products of a step, from which x, y, s and tau are read at checks alone."""

    v: Tensor
    """(B, l) the state; l is n + m + 1, or less where the map eliminates."""
    linear_step: Tensor
    """(B, l) u~ - v."""
    projected: Tensor
    """(B, k) the last k coordinates of u, the projection of z = 2 u~ - v; the others are those of z."""

    @property
    def u(self) -> Tensor:
        """(B, l) (x, y, tau)."""
        free = self.v.shape[1] - self.projected.shape[1]
        return torch.cat([torch.add(self.v[:, :free], self.linear_step[:, :free], alpha=2), self.projected], 1)

    @property
    def tau(self) -> Tensor:
        """(B, 1) tau."""
        return self.projected[:, -1:]

    def vanished(self) -> tuple[Tensor, Tensor]:
        """(B, 1) bool where tau is next to nothing, and (B, 1) the length of (x, y, tau)."""
        length = torch.linalg.vector_norm(self.u, dim=1, keepdim=True)
        return self.tau <= TAU_FLOOR * length, length

    def slack(self, R: Tensor) -> Tensor:
        """(B, l) R (u - z) = (0, s, kappa)."""
        free = self.v.shape[1] - self.projected.shape[1]
        z = torch.add(self.v[:, free:], self.linear_step[:, free:], alpha=2)
        return torch.cat([torch.zeros_like(self.v[:, :free]), R[..., free:] * (self.projected - z)], 1)


class InstanceData(NamedTuple):
    """What belongs to single instances; None where the batch shares it or there is none."""

    data: Data
    """Scaled; A and P are placeholders without entries here when the batch shares them."""
    scaling: Scaling
    units: Unscaling
    system: LinearSystem | None
    restricted: Any
    """Solves for the inequalities alone, where the map eliminates: see `LinearSystem.restricted`."""
    g: Tensor
    """(B, n + m) K^{-1} (c, -b)."""
    weighted: Tensor
    """(B, l - 1) R g, of the coordinates that the state has."""
    curvature: Tensor
    """(B, 1) tau_factor + g'R g."""
    R: Tensor | None
    """(B, n + m + 1)"""
    signed: Tensor | None
    """(B, n + m) (R_x, -R_y), which a step multiplies the state with."""
    bounds: Tensor | None
    """(B, 2, k) of the box, scaled."""
    weights: CertificateScale
    history: ScaleHistory | None


class BatchData(NamedTuple):
    """What the whole batch uses; None where every instance has its own."""

    solver: LinearSolver
    """The backend of the linear system."""
    A: Any = None
    P: Any = None
    system: LinearSystem | None = None
    R: Tensor | None = None
    """(n + m + 1,)"""
    signed: Tensor | None = None
    """(n + m,) (R_x, -R_y)."""
    response: Any = None
    """`eliminated.ReducedOperator`, where the map eliminates."""
    scaling: Any = None
    """D (1, m) and E (1, n)."""
