"""The epigraph of the nuclear norm."""

from __future__ import annotations

import torch
from torch import Tensor

from fixedpoint.tensors.masks import finite_rows, row_indices
from maps.cones.calculus.decomposed import DecomposedCone, Parts, clipped_differences
from maps.cones.cone import Cone, positive, whole

EXACT = 1e-3
"""Of the largest singular value: from here on an eigenvalue of the Gram matrix tells a singular value to 1e-12."""


class NuclearNorm(DecomposedCone):
    """{(t, vec X) : the singular values of X add up to at most slope t}; vec goes column by column.

    The nearest point has singular values max(sigma - theta, 0) and t + slope theta, with the least theta >= 0 that puts
    it into the cone.

    Args:
        rows, columns: of X; `dim` is 1 + rows * columns.
        slope: > 0. It says in which units t is measured, and so how much a projection moves it.
    """

    def __init__(self, rows: int, columns: int, slope: float = 1.0) -> None:
        self.rows, self.columns, self.slope = whole("rows", rows), whole("columns", columns), positive("slope", slope)
        super().__init__(1 + self.rows * self.columns)

    @classmethod
    def examples(cls) -> list[Cone]:
        """Square, tall, wide and steep."""
        return [cls(1, 1), cls(2, 2), cls(4, 2), cls(2, 3), cls(3, 2, 4.0)]

    def decompose(self, z: Tensor) -> Parts:
        """t, U, sigma, V' of X' and theta, see `shrinkage`."""
        t = z[:, :1]
        u, sigma, vt = torch.linalg.svd(z[:, 1:].unflatten(1, (self.columns, self.rows)), full_matrices=False)
        return t, u, sigma, vt, shrinkage(t, sigma, self.slope)[0]

    def nearest(self, z: Tensor) -> Tensor:
        """By the eigenvalues of the smaller of X'X and XX', three times faster, where these are exact enough.

        A singular value sigma comes out with an error of eps sigma_1^2 / sigma, which matters only above theta: where
        theta is below `EXACT` sigma_1 the singular values themselves are computed.
        """
        given, z = z, z.double()
        t, x = z[:, :1], z[:, 1:].unflatten(1, (self.columns, self.rows))
        finite = finite_rows(z)
        wide = x if self.columns <= self.rows else x.mT
        gram = torch.where(finite[:, None, None], wide @ wide.mT, 0.0)
        squared, vectors = torch.linalg.eigh(gram)
        sigma = squared.relu().sqrt()
        theta, _ = shrinkage(t, sigma.flip(1), self.slope)
        kept = (vectors * (1 - theta / sigma.clamp(min=torch.finfo(torch.float64).tiny)).relu()[:, None]) @ vectors.mT
        new = kept @ wide
        new = new if self.columns <= self.rows else new.mT
        found = torch.where(theta > 0, torch.cat([t + self.slope * theta, new.flatten(1)], 1), z)
        inside = (theta == 0) & (sigma.sum(1, keepdim=True) * (1 + EXACT) < self.slope * t)
        unsure = row_indices(~finite | (~inside & (theta < EXACT * sigma[:, -1:])).any(1))
        assert unsure is not None
        found = found.to(given.dtype)
        return found.index_copy(0, unsure, super().nearest(given[unsure])) if len(unsure) else found

    def point(self, parts: Parts) -> Tensor:
        """Singular values shrunk by theta."""
        t, u, sigma, vt, theta = parts
        return torch.cat([t + self.slope * theta, ((u * (sigma - theta).relu()[:, None]) @ vt).flatten(1)], 1)

    def derivative(self, parts: Parts, v: Tensor) -> Tensor:
        """Divided differences on the even and odd parts of U'VW, the parts outside of it, and the change of theta."""
        _, u, sigma, vt, theta = parts
        new, x = (sigma - theta).relu(), v[:, 1:].unflatten(1, (self.columns, self.rows))
        ahead, behind = u.mT @ x, x @ vt.mT
        core = ahead @ vt.mT
        active = (sigma > theta).to(v)
        trace = (active * core.diagonal(dim1=1, dim2=2)).sum(1, keepdim=True)
        of_theta = (trace - self.slope * v[:, :1]) / (self.slope**2 + active.sum(1, keepdim=True))
        sums = sigma[:, :, None] + sigma[:, None, :]
        odd = (new[:, :, None] + new[:, None, :]) / torch.where(sums > 0, sums, 1.0)
        even, ratio = clipped_differences(sigma - theta), new / torch.where(sigma > 0, sigma, 1.0)
        inner = ((even + odd) * core + (even - odd) * core.mT) / 2 - torch.diag_embed(active * of_theta)
        inner = inner - (ratio[:, :, None] + ratio[:, None, :]) * core  # which the two sides below have in full
        moved = u @ (inner @ vt + ratio[:, :, None] * ahead) + (behind * ratio[:, None]) @ vt
        return torch.where(theta > 0, torch.cat([v[:, :1] + self.slope * of_theta, moved.flatten(1)], 1), v)


def shrinkage(t: Tensor, sizes: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """(theta >= 0, how many descending sizes exceed it), (B, 1) each: max(sizes - theta, 0) add up to
    slope (t + slope theta), or theta is 0 where the sizes (B, k) add up to less than slope t.

    theta is the largest (s_1 + ... + s_j - slope t) / (j + slope^2), if positive, and j that many.
    """
    excess = torch.cat([torch.zeros_like(t), sizes.cumsum(1)], 1) - slope * t
    most = (excess / (torch.arange(excess.shape[1], device=t.device).to(t) + slope**2)).max(1, keepdim=True)
    return most.values.relu(), most.indices
