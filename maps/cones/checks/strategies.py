"""Where cones are tested: hypothesis strategies for points, the awkward ones included.

A point is decoded from bytes: they are fast to draw, and the constants from source files that hypothesis mixes into
numbers cannot make runs differ from place to place.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

import torch
from torch import Tensor

from maps.cones.cone import Cone

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'checking cones needs hypothesis: pip install "fixedpoint-acceleration[check]"', name=error.name
    ) from error

_SMALL = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64)
_SCALES = torch.tensor([1.0, 1.0, 1e-3, 1e3, 1e-6, 1e6, 0.1, 10.0], dtype=torch.float64)
_NEAR = 1e-7
"""How far a point next to a tie or a boundary is from it, relative to its size."""
_HEAD = 3


def points(cone: Cone, *, rows: tuple[int, int] = (1, 4)) -> st.SearchStrategy[Tensor]:
    """Batches of points around a cone.

    Every row is of one of these kinds, at a scale between 1e-6 and 1e6: small whole numbers (so zeros, ties, repeated
    eigenvalues), few of them nonzero, normal numbers, such numbers of very different sizes, projections of all these
    (mostly on the boundary), the same of the polar cone, sums of both, and points right next to ties and boundaries.
    Shrinks to one row of zeros.

    Args:
        cone: the cone; its own projections are used.
        rows: fewest and most rows.

    Returns:
        A strategy for (B, k), float64.
    """
    return tuples(cone, 1, rows).map(itemgetter(0))


def tuples(cone: Cone, number: int, rows: tuple[int, int] = (1, 4)) -> st.SearchStrategy[tuple[Tensor, ...]]:
    """That many batches with the same number of rows, between the two given."""
    row = st.binary(min_size=_HEAD + cone.dim, max_size=_HEAD + cone.dim)
    batches = st.lists(st.tuples(*[row] * number), min_size=rows[0], max_size=rows[1])
    return batches.map(lambda drawn: tuple(_decoded(cone, batch) for batch in zip(*drawn, strict=True)))


def _decoded(cone: Cone, drawn: Iterable[bytes]) -> Tensor:
    """The points of bytes: kind, scale, seed of the normal numbers, then a small number for each coordinate."""
    numbers = torch.tensor([list(row) for row in drawn])
    kinds, scales, seeds = numbers[:, :_HEAD].T
    small = _SMALL[numbers[:, _HEAD:] % len(_SMALL)]
    wild = torch.stack([_normal(seed, cone.dim) for seed in seeds.tolist()])
    sparse = torch.where(wild > 0.5, small, 0.0)
    raw = torch.cat([small, wild, sparse])
    p = _projected(cone, raw)
    (inside, edge, _), (across, polar, _) = p.chunk(3), (raw - p).chunk(3)
    sums = (edge + polar, inside + polar, edge + across)
    near = (_NEAR * wild + tied for tied in (small, sparse, inside, across, polar))
    mixed = wild * 10.0 ** (3 * small)
    table = torch.stack([small, sparse, wild, inside, edge, polar, across, *sums, *near, mixed])
    return table[kinds % len(table), torch.arange(len(table[0]))] * _SCALES[scales % len(_SCALES)][:, None]


def _normal(seed: int, dim: int) -> Tensor:
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _projected(cone: Cone, z: Tensor) -> Tensor:
    """The projection, or the points themselves where it is no use: the laws will say so."""
    try:
        p = cone.project(z.clone())
        usable = p.shape == z.shape and p.dtype == z.dtype and bool(torch.isfinite(p).all())
    except Exception:
        return z
    return p if usable else z
