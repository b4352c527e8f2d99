"""The epigraph of the sum of magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor

from maps.cones.cone import Cone, positive, whole
from maps.cones.nuclear_norm import shrinkage


class L1Norm(Cone):
    """{(t, v) : the magnitudes of v add up to at most slope t}, whose dual is the cone over a cube.

    The nearest point has the magnitudes max(|v| - theta, 0) and t + slope theta, with the least theta >= 0 that puts it
    into the cone.

    Args:
        size: of v; `dim` is 1 + size.
        slope: > 0, as for `NuclearNorm`.
    """

    def __init__(self, size: int, slope: float = 1.0) -> None:
        self.size, self.slope = whole("size", size), positive("slope", slope)
        super().__init__(1 + self.size)

    @classmethod
    def examples(cls) -> list[Cone]:
        """A half line, a ray on each side, several entries, and a steep one."""
        return [cls(0), cls(1), cls(4), cls(3, 2.5)]

    def project(self, z: Tensor) -> Tensor:
        """The nearest point of the cone."""
        t, v = z[:, :1], z[:, 1:]
        sizes, order = v.detach().abs().sort(dim=1, descending=True)
        theta, count = shrinkage(t.detach(), sizes, self.slope)
        moved = theta > 0
        active = (torch.arange(self.size, device=order.device).to(order) < count).to(
            v
        )  # not sizes > theta, which a small slope rounds away
        signs = (
            torch.zeros_like(v).scatter(1, order, active) * v.detach().sign()
        )  # with these known, theta is linear in z
        theta = ((signs * v).sum(1, keepdim=True) - self.slope * t) / (self.slope**2 + count.to(v))
        kept = torch.where(signs == 0, 0.0, v) - signs * theta
        return torch.where(moved, torch.cat([t + self.slope * theta, kept], 1), z)
