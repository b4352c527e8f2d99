"""Cones, and points around them, for tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maps.cones import PSD, Box, Cone, Dual, Exponential, L1Norm, NuclearNorm, Power, ProductCone, SecondOrder

INF = math.inf

MIXED = {
    "z": 1,
    "l": 2,
    "bu": [1.0, INF],
    "bl": [-1.0, 0.0],
    "q": [3, 1, 2, 0, 3],
    "s": [2, 1, 2],
    "ep": 2,
    "ed": 1,
    "p": [0.5, -0.3, 1.0],
    "l1-norm": [[2], [3, 0.5]],
    "nuclear-norm": [[2, 2], [1, 3], [2, 2]],
}
"""Every kind of block."""

SMOOTH: list[Cone] = [
    Box([-1.0, -0.5, 0.2, -INF], [2.0, 0.5, 0.3, 1.0]),
    SecondOrder(4),
    L1Norm(4),
    L1Norm(3, 2.5),
    Exponential(),
    Dual(Exponential()),
    *map(Power, (0.5, 0.3, -0.9, 1.0)),
    ProductCone({"q": [2, 1, 2], "p": [0.2, -0.5]}),
]
"""Differentiable twice."""
ONCE: list[Cone] = [PSD(1), PSD(3), NuclearNorm(3, 2), NuclearNorm(2, 3, 4.0), ProductCone({"l": 1, "s": [2, 1, 2]})]
"""Second derivatives are refused."""
CONES = [*SMOOTH, *ONCE]


def named(cone: Cone) -> str:
    """A test's name for a cone."""
    return f"{type(cone).__name__}-{cone.dim}-{getattr(cone, 'exponent', '')}".strip("-")


def normal(cone: Cone, rows: int, seed: int = 0) -> Tensor:
    """(rows, k) normal numbers: almost surely no kinks."""
    return torch.randn(rows, cone.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awkward(cone: Cone) -> Tensor:
    """(B, k) the apex, boundaries of the cone and its polar and points next to them, ties, zeros, all scales."""
    z = normal(cone, 20, seed=1)
    edges = torch.cat([cone.project(z), -cone.project_dual(-z)])
    near = torch.cat([edges + step * normal(cone, len(edges), seed=2) for step in (1e-15, 1e-12, 1e-9, 1e-7)])
    whole = torch.randint(-1, 2, z.shape, generator=torch.Generator().manual_seed(3)).to(z)
    spread = z * 10.0 ** torch.randint(-12, 13, z.shape, generator=torch.Generator().manual_seed(4))
    vanishing = torch.where(whole > 0, 1e-200 * z, z)
    small = torch.cat([z[:, :-1] * 1e-12, z[:, -1:]], 1)
    ones = torch.ones_like(z[:1])
    every = torch.cat([edges, near, whole, spread, small, vanishing, 0 * ones, ones, -ones])
    return torch.cat([every * scale for scale in (1.0, 1e-6, 1e6)])
