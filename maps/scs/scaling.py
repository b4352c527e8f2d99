"""SCS's normalization: A^ = D A E, P^ = E P E, b^ = sigma D b, c^ = sigma E c with diagonal D, E.

25 Ruiz passes (infinity norms), then one pass of root-mean-square norms over the stored entries, as SCS 3.3.1 has it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maps.cones import ProductCone

RUIZ_PASSES = 25


class Scaling(NamedTuple):
    """Diagonals of the normalization; constants as far as gradients go (x, y, s unscaled do not depend on them)."""

    D: Tensor
    """(B, m)"""
    E: Tensor
    """(B, n)"""
    sigma: Tensor
    """(B, 1)"""


class Data(NamedTuple):
    """A batch of cone programs' numbers; A and P may have a leading axis of 1 when the batch shares them."""

    A: Tensor
    """(B or 1, m, n)"""
    P: Tensor | None
    """(B or 1, n, n)"""
    b: Tensor
    """(B, m)"""
    c: Tensor
    """(B, n)"""


def identity(data: Data) -> Scaling:
    """No scaling."""
    return Scaling(torch.ones_like(data.b), torch.ones_like(data.c), torch.ones_like(data.b[:, :1]))


def apply(data: Data, scaling: Scaling) -> Data:
    """The scaled data."""
    D, E, sigma = scaling
    return Data(
        A=D[:, :, None] * data.A * E[:, None, :],
        P=None if data.P is None else E[:, :, None] * data.P * E[:, None, :],
        b=sigma * D * data.b,
        c=sigma * E * data.c,
    )


def equilibrate(data: Data, cone: ProductCone, stored: dict[str, Tensor]) -> Scaling:
    """The diagonals for a batch.

    Args:
        data: the programs.
        cone: rows inside a block that is not separable get one scaling.
        stored: "A" (m, n) and "P" (n, n) bool masks of the entries that count.
    """
    with torch.no_grad():
        counts = {name: (mask.sum(1), mask.sum(0)) for name, mask in stored.items()}
        total = identity(data)
        current = apply(data, total)  # also gives shared matrices their batch axis
        for _ in range(RUIZ_PASSES):
            current, total = _rescale(current, total, _largest(current, cone))
        return _rescale(current, total, _root_mean_square(current, cone, counts))[1]


def _largest(data: Data, cone: ProductCone) -> tuple[Tensor, Tensor, Tensor]:
    """Infinity norms of the rows, the columns and the tau row and column."""
    size = data.A.abs()
    rows = _amax(size, 2).maximum(data.b.abs())
    columns = _amax(size, 1).maximum(data.c.abs())
    if data.P is not None:
        columns = columns.maximum(data.P.abs().amax(1))
    tau = torch.maximum(_amax(data.b.abs(), 1), data.c.abs().amax(1))
    return cone.share_within_blocks(rows, "max"), columns, tau[:, None]


def _root_mean_square(
    data: Data, cone: ProductCone, counts: dict[str, tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Root-mean-square norms of the rows, the columns and the tau row and column."""
    squares = data.A * data.A
    row_count, column_count = counts["A"]
    rows = torch.sqrt((squares.sum(2) + data.b**2) / (row_count + 1))
    columns = squares.sum(1) + data.c**2
    if data.P is not None:
        columns = columns + (data.P * data.P).sum(1)
        column_count = column_count + counts["P"][1]
    columns = torch.sqrt(columns / (column_count + 1))
    tau = torch.maximum(_mean_square(data.b), _mean_square(data.c))
    return cone.share_within_blocks(rows, "mean"), columns, torch.sqrt(tau)[:, None]


def _rescale(data: Data, total: Scaling, norms: tuple[Tensor, Tensor, Tensor]) -> tuple[Data, Scaling]:
    """Divide by the square roots of the norms."""
    step = Scaling(*(1 / torch.sqrt(_limit(norm)) for norm in norms))
    return apply(data, step), Scaling(*(a * b for a, b in zip(total, step, strict=True)))


def _limit(norm: Tensor) -> Tensor:
    return torch.where(norm < 1e-4, torch.ones_like(norm), norm.clamp(max=1e4))


def _amax(t: Tensor, axis: int) -> Tensor:
    """Maximum along an axis of nonnegative numbers, 0 when the axis is empty (m = 0)."""
    return t.amax(axis) if t.shape[axis] else t.sum(axis)


def _mean_square(t: Tensor) -> Tensor:
    return (t * t).sum(1) / max(t.shape[1], 1)
