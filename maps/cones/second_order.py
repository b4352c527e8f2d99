"""The second-order cone, its own dual."""

from __future__ import annotations

import torch
from torch import Tensor

from maps.cones.cone import Cone


class SecondOrder(Cone):
    """{(t, v) : ||v||_2 <= t}, the first coordinate being t; length 1 is the half line, length 0 is empty.

    With n = ||v||: the point itself where n <= t, 0 where n <= -t, else (t + n)/2 (1, v/n)
    (Boyd & Parikh, Proximal Algorithms, 6.3.2). The derivative follows from these branches; it is finite everywhere.
    Entries beyond 1e150 (1e19 in float32) overflow: scaling rows first would cost half as much again.
    """

    def project(self, z: Tensor) -> Tensor:
        """The nearest point of the cone."""
        if self.dim < 2:
            return z.relu()
        t, v = z[:, :1], z[:, 1:]
        squared = (v * v).sum(1, keepdim=True)
        none = squared == 0
        n = squared.masked_fill(none, 1.0).sqrt().masked_fill(none, 0.0)  # no derivative of sqrt at 0
        inside = n <= t
        first = torch.where(inside, t, ((t + n) / 2).relu())
        share = first / n.clamp(min=torch.finfo(z.dtype).tiny).masked_fill(inside, 1.0)  # of v, but for the inside
        return torch.cat([first, share.masked_fill(inside, 1.0) * v], dim=1)

    def project_dual(self, z: Tensor) -> Tensor:
        """The same."""
        return self.project(z)
