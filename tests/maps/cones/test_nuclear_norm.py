"""The nuclear norm without derivatives goes by the small Gram matrix: the same points as by singular values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maps.cones import NuclearNorm
from maps.cones.calculus.decomposed import DecomposedCone

SIZES = [(30, 3), (3, 30), (4, 4), (1, 1), (2, 5)]


def points(rows: int, columns: int) -> Tensor:
    """(600, 1 + rows * columns): inside, outside, in the polar cone, of nearly low rank, on and beside the boundary."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    z = random(600, 1 + rows * columns)
    z[:100, 0] = 3 * torch.linalg.vector_norm(z[:100, 1:], dim=1)
    z[100:200] *= torch.logspace(-12, 0, 100, dtype=torch.float64)[:, None]
    thin = random(100, columns, 1) @ random(100, 1, rows) + 1e-9 * random(100, columns, rows)
    z[200:300, 1:] = thin.flatten(1)
    sums = torch.linalg.svdvals(z[300:500, 1:].unflatten(1, (columns, rows))).sum(1)
    z[300:400, 0] = sums[:100] * (1 - torch.logspace(-14, 0, 100, dtype=torch.float64))
    z[400:500, 0] = -sums[100:]
    noise = torch.logspace(-7, -2, 100, dtype=torch.float64)[:, None, None]  # small singular values that count:
    thin = random(100, columns, 1) @ random(100, 1, rows) + noise * random(100, columns, rows)
    values = torch.linalg.svdvals(thin)
    z[500:] = torch.cat([(values.sum(1) - 0.3 * values[:, -1])[:, None], thin.flatten(1)], 1)  # theta is below them
    return z


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", SIZES)
def test_both_ways_give_the_same_point(size: tuple[int, int], scale: float) -> None:
    cone, z = NuclearNorm(*size), scale * points(*size)
    error = (cone.nearest(z) - DecomposedCone.nearest(cone, z)).abs().amax(1) / z.abs().amax(1)
    assert float(error.max()) <= 1e-13


def test_float32_and_a_row_that_is_not_finite() -> None:
    cone, z = NuclearNorm(30, 3), points(30, 3)
    single = cone.nearest(z.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, cone.nearest(z).float(), rtol=1e-5, atol=1e-5)
    spoiled = z.clone()
    spoiled[7, 5] = torch.inf
    found = cone.nearest(spoiled)
    assert bool(found[7].isnan().all())
    keep = torch.arange(600) != 7
    assert torch.equal(found[keep], cone.nearest(z)[keep])
