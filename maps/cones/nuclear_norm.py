"""The epigraph of the nuclear norm."""

from __future__ import annotations

import torch
from torch import Tensor

from fixedpoint.masks import finite_rows, indices
from maps.cones.cone import Cone, whole
from maps.cones.decomposed import DecomposedCone, Parts, clipped_differences

EXACT = 1e-3
"""Of the largest singular value: from here on an eigenvalue of the Gram matrix tells a singular value to 1e-12."""


class NuclearNorm(DecomposedCone):
    """{(t, vec X) : the singular values of X add up to at most t}; vec goes column by column.

    The nearest point has singular values max(sigma - theta, 0) and t + theta, theta >= 0 making them add up to it.

    Args:
        rows, columns: of X; `dim` is 1 + rows * columns.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = whole("rows", rows), whole("columns", columns)
        super().__init__(1 + self.rows * self.columns)

    @classmethod
    def examples(cls) -> list[Cone]:
        """Square, tall and wide."""
        return [cls(1, 1), cls(2, 2), cls(4, 2), cls(2, 3)]

    def decompose(self, z: Tensor) -> Parts:
        """t, U, sigma, V' of X' and theta: the largest (sigma_1 + ... + sigma_j - t) / (j + 1), if positive."""
        t = z[:, :1]
        u, sigma, vt = torch.linalg.svd(z[:, 1:].unflatten(1, (self.columns, self.rows)), full_matrices=False)
        return t, u, sigma, vt, _shrinkage(t, sigma)

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
        theta = _shrinkage(t, sigma.flip(1))
        kept = (vectors * (1 - theta / sigma.clamp(min=torch.finfo(torch.float64).tiny)).relu()[:, None]) @ vectors.mT
        new = kept @ wide
        new = new if self.columns <= self.rows else new.mT
        found = torch.where(theta > 0, torch.cat([t + theta, new.flatten(1)], 1), z)
        inside = (theta == 0) & (sigma.sum(1, keepdim=True) * (1 + EXACT) < t)
        unsure = indices(~finite | (~inside & (theta < EXACT * sigma[:, -1:])).any(1))
        assert unsure is not None
        found = found.to(given.dtype)
        return found.index_copy(0, unsure, super().nearest(given[unsure])) if len(unsure) else found

    def point(self, parts: Parts) -> Tensor:
        """Singular values shrunk by theta."""
        t, u, sigma, vt, theta = parts
        return torch.cat([t + theta, ((u * (sigma - theta).relu()[:, None]) @ vt).flatten(1)], 1)

    def derivative(self, parts: Parts, v: Tensor) -> Tensor:
        """Divided differences on the even and odd parts of U'VW, the parts outside of it, and the change of theta."""
        _, u, sigma, vt, theta = parts
        new, x = (sigma - theta).relu(), v[:, 1:].unflatten(1, (self.columns, self.rows))
        ahead, behind = u.mT @ x, x @ vt.mT
        core = ahead @ vt.mT
        active = (sigma > theta).to(v)
        trace = (active * core.diagonal(dim1=1, dim2=2)).sum(1, keepdim=True)
        of_theta = (trace - v[:, :1]) / (1 + active.sum(1, keepdim=True))
        sums = sigma[:, :, None] + sigma[:, None, :]
        odd = (new[:, :, None] + new[:, None, :]) / torch.where(sums > 0, sums, 1.0)
        even, ratio = clipped_differences(sigma - theta), new / torch.where(sigma > 0, sigma, 1.0)
        inner = ((even + odd) * core + (even - odd) * core.mT) / 2 - torch.diag_embed(active * of_theta)
        inner = inner - (ratio[:, :, None] + ratio[:, None, :]) * core  # which the two sides below have in full
        moved = u @ (inner @ vt + ratio[:, :, None] * ahead) + (behind * ratio[:, None]) @ vt
        return torch.where(theta > 0, torch.cat([v[:, :1] + of_theta, moved.flatten(1)], 1), v)


def _shrinkage(t: Tensor, sigma: Tensor) -> Tensor:
    """(B, 1) theta for descending singular values (B, k): the largest (sigma_1 + ... + sigma_j - t) / (j + 1), or 0."""
    excess = torch.cat([torch.zeros_like(t), sigma.cumsum(1)], 1) - t
    return (excess / torch.arange(1, excess.shape[1] + 1).to(t)).amax(1, keepdim=True).relu()
