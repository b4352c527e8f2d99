"""What a step of SCS does after its linear system: tau, projection, relaxation. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from maps.cones import ProductCone
from maps.scs.iteration.embedding import tau_tilde
from maps.scs.iteration.state import InnerPoint


class Step:
    """f(v) from p = K^{-1} (R_x v_x, -R_y v_y).

    Args:
        free: coordinates in front that a projection leaves as they are: x, and duals of equations.
        cone: K.
        alpha: relaxation.
    """

    def __init__(self, free: int, cone: ProductCone, alpha: float) -> None:
        self.free = free
        self.cone = cone.inequalities
        self.alpha = alpha

    def __call__(
        self, v: Tensor, p: Tensor, g: Tensor, weighted: Tensor, curvature: Tensor, R: Tensor, bounds: Tensor | None
    ) -> tuple[Tensor, InnerPoint]:
        """(f(v), the inner point).

        Args:
            v: (B, l).
            p: (B, n + m).
            g: (B, n + m) K^{-1} (c, -b); `weighted` R g, `curvature` (B, 1): see `embedding.tau_tilde`.
            R: (l,) or (B, l).
            bounds: of the box cone, scaled.
        """
        eta, difference = v[:, -1:], p - v[:, :-1]
        tau = tau_tilde(difference, p, eta, weighted, curvature, R)
        half = torch.cat([torch.addcmul(difference, tau, g, value=-1), tau - eta], 1)
        return self.project(v, half, bounds)

    def project(
        self, v: Tensor, half: Tensor, bounds: Tensor | None, *, hold_tau: bool = False
    ) -> tuple[Tensor, InnerPoint]:
        """The second half of a step, after the first, u~ - v: project and relax; `hold_tau` at 1.

        R is constant inside every block that is not separable and on the box, so the projection in its norm is the
        Euclidean one.
        """
        tail, rest = v[:, self.free :], half[:, self.free :]
        u_tilde = tail + rest
        z = u_tilde + rest
        tau = torch.ones_like(z[:, -1:]) if hold_tau else z[:, -1:].relu()
        u = torch.cat([self.cone.project_dual(z[:, :-1], bounds), tau], 1)
        following = torch.add(tail, u - u_tilde, alpha=self.alpha)
        if self.free:
            following = torch.cat([torch.add(v[:, : self.free], half[:, : self.free], alpha=self.alpha), following], 1)
        return following, InnerPoint(v, half, u)
