"""SCS's normalization: A^ = D A E, P^ = E P E, b^ = sigma D b, c^ = sigma E c with diagonal D, E.

25 Ruiz passes (infinity norms), then one pass of root-mean-square norms over the stored entries, as SCS 3.3.1 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
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
    return Scaling(torch.ones_like(data.b), torch.ones_like(data.c), torch.ones_like(data.c[:, :1]))


def apply(data: Data, scaling: Scaling) -> Data:
    """The scaled data."""
    D, E, sigma = scaling
    return Data(
        A=D[:, :, None] * data.A * E[:, None, :],
        P=None if data.P is None else E[:, :, None] * data.P * E[:, None, :],
        b=sigma * D * data.b,
        c=sigma * E * data.c,
    )


class _Entries(NamedTuple):
    """The stored entries of a batch of matrices with one pattern."""

    values: Tensor
    """(B or 1, entries)"""
    rows: Tensor
    """(entries,)"""
    columns: Tensor
    """(entries,)"""

    def scaled(self, left: Tensor, right: Tensor) -> _Entries:
        """Row i times left[:, i], column j times right[:, j]."""
        return self._replace(values=self.values * left[:, self.rows] * right[:, self.columns])

    def largest(self, by: Tensor, into: Tensor) -> Tensor:
        """(B, k) the largest magnitude of each row or column and of `into`."""
        return into.scatter_reduce(1, by.expand_as(self.values), self.values.abs(), "amax")

    def squares(self, by: Tensor, into: Tensor) -> Tensor:
        """(B, k) sums of squares of each row or column, added to `into`."""
        return into.scatter_add(1, by.expand_as(self.values), self.values**2)


class _Sparse(NamedTuple):
    """The data as the passes see them."""

    A: _Entries
    P: _Entries
    b: Tensor
    c: Tensor


_Norms = tuple[Tensor, Tensor, Tensor]
"""Norms of the rows (B, m), of the columns (B, n) and of the tau row and column (B, 1)."""


def equilibrate(data: Data, cone: ProductCone, stored: Mapping[str, np.ndarray]) -> Scaling:
    """The diagonals for a batch.

    Args:
        data: the programs.
        cone: rows inside a block that is not separable get one scaling.
        stored: "A" (m, n) and, unless P is None, "P" (n, n) bool masks of the entries that count.
    """
    with torch.no_grad():
        nothing = data.A.new_zeros(1, data.c.shape[1], 0)
        A = _entries(data.A, stored["A"])
        P = (
            _entries(nothing, np.zeros(nothing.shape[1:], dtype=bool))
            if data.P is None
            else _entries(data.P, stored["P"])
        )
        total = identity(data)
        current = _rescaled(_Sparse(A, P, data.b, data.c), total)  # gives shared matrices their batch axis
        for _ in range(RUIZ_PASSES):
            step = _step(_largest(current, cone))
            current, total = _rescaled(current, step), _product(total, step)
        return _product(total, _step(_root_mean_square(current, cone)))


def _entries(matrix: Tensor, mask: np.ndarray) -> _Entries:
    rows, columns = (torch.from_numpy(index) for index in np.nonzero(mask))
    return _Entries(matrix[:, rows, columns], rows, columns)


def _rescaled(data: _Sparse, step: Scaling) -> _Sparse:
    D, E, sigma = step
    return _Sparse(data.A.scaled(D, E), data.P.scaled(E, E), data.b * D * sigma, data.c * E * sigma)


def _product(one: Scaling, two: Scaling) -> Scaling:
    return Scaling(*(a * b for a, b in zip(one, two, strict=True)))


def _step(norms: _Norms) -> Scaling:
    return Scaling(*(1 / torch.sqrt(_limit(norm)) for norm in norms))


def _largest(data: _Sparse, cone: ProductCone) -> _Norms:
    """Infinity norms; P is symmetric, so its rows are its columns."""
    rows = data.A.largest(data.A.rows, data.b.abs())
    columns = data.P.largest(data.P.columns, data.A.largest(data.A.columns, data.c.abs()))
    tau = torch.cat([data.b, data.c], 1).abs().amax(1, keepdim=True)
    return cone.share_within_blocks(rows, "max"), columns, tau


def _root_mean_square(data: _Sparse, cone: ProductCone) -> _Norms:
    """Root-mean-square norms over the stored entries."""
    n, m = data.c.shape[1], data.b.shape[1]
    row_count = torch.bincount(data.A.rows, minlength=m) + 1
    column_count = torch.bincount(data.A.columns, minlength=n) + torch.bincount(data.P.columns, minlength=n) + 1
    rows = torch.sqrt(data.A.squares(data.A.rows, data.b**2) / row_count)
    columns = data.P.squares(data.P.columns, data.A.squares(data.A.columns, data.c**2))
    tau = torch.maximum((data.b**2).sum(1) / max(m, 1), (data.c**2).sum(1) / n)
    return cone.share_within_blocks(rows, "mean"), torch.sqrt(columns / column_count), torch.sqrt(tau)[:, None]


def _limit(norm: Tensor) -> Tensor:
    return torch.where(norm < 1e-4, torch.ones_like(norm), norm.clamp(max=1e4))
