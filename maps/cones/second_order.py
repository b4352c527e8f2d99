"""The second-order cone, its own dual."""

from __future__ import annotations

import torch
from torch import Tensor

from maps.cones.cone import Cone


class SecondOrder(Cone):
    """{(t, v) : ||v||_2 <= t}, the first coordinate being t; length 1 is the half line, length 0 is empty.

    With n = ||v||: the point itself where n <= t, 0 where n <= -t, else (t + n)/2 (1, v/n)
    (Boyd & Parikh, Proximal Algorithms, 6.3.2). The derivative follows from these branches; it is finite everywhere.
    """

    def project(self, z: Tensor) -> Tensor:
        """The nearest point of the cone."""
        if self.dim == 0:
            return z
        t, v = z[:, :1], z[:, 1:]
        squared = (v * v).sum(1, keepdim=True)
        n = torch.sqrt(torch.where(squared > 0, squared, torch.ones_like(squared)))  # no sqrt at 0, no 0/0
        n = torch.where(squared > 0, n, torch.zeros_like(n))
        share = (t + n) / (2 * torch.where(n > 0, n, torch.ones_like(n)))  # v's factor on the boundary
        boundary = torch.cat([share * n, share * v], dim=1)
        return torch.where(n <= t, z, torch.where(n <= -t, torch.zeros_like(z), boundary))

    def project_dual(self, z: Tensor) -> Tensor:
        """The same."""
        return self.project(z)
