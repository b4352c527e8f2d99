"""SCS's normalization: A^ = D A E, P^ = E P E, b^ = sigma D b, c^ = sigma E c with diagonal D, E.

25 Ruiz passes (infinity norms), then one pass of root-mean-square norms over the stored entries, as SCS 3.3.1 has it.
There D and E depend on b and c too, so that a batch that shares A gets a matrix per instance; `shared` takes them from
A and P alone, one pair for the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maps.cones import ProductCone
from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix

RUIZ_PASSES = 25


class Scaling(NamedTuple):
    """Diagonals of the normalization; constants as far as gradients go (x, y, s unscaled do not depend on them)."""

    D: Tensor
    """(B, m), or (1, m) shared."""
    E: Tensor
    """(B, n), or (1, n) shared."""
    sigma: Tensor
    """(B, 1)"""


class Data(NamedTuple):
    """A batch of cone programs' numbers."""

    A: Matrix
    """(B, m, n), or (m, n) shared."""
    P: Matrix | None
    """(B, n, n), or (n, n) shared."""
    b: Tensor
    """(B, m)"""
    c: Tensor
    """(B, n)"""


def identity(data: Data) -> Scaling:
    """No scaling."""
    D, E = (torch.ones_like(t[:1]).expand_as(t) for t in (data.b, data.c))
    return Scaling(D, E, torch.ones_like(data.c[:, :1]))


def apply(data: Data, scaling: Scaling) -> Data:
    """The scaled data; a shared matrix stays shared where the diagonals are."""
    P = None if data.P is None else _scaled(data.P, scaling.E, scaling.E)
    return Data(_scaled(data.A, scaling.D, scaling.E), P, *apply_vectors(data, scaling))


def apply_vectors(data: Data, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """The scaled b and c."""
    D, E, sigma = scaling
    return sigma * D * data.b, sigma * E * data.c


def _scaled(matrix: Matrix, left: Tensor, right: Tensor) -> Matrix:
    if isinstance(matrix, SparseMatrix):
        scaled = matrix.scaled(left, right)
        return scaled if len(left) > 1 or matrix.ndim == 3 else SparseMatrix(scaled.values[0], matrix.pattern)
    product = left[:, :, None] * matrix * right[:, None, :]
    return product if len(left) > 1 or matrix.ndim == 3 else product[0]


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

    def largest(self, axis: int, into: Tensor) -> Tensor:
        """(B, k) the largest magnitude of each row (axis 0) or column (axis 1) and of `into`."""
        by = self.columns if axis else self.rows
        return into.scatter_reduce(1, by.expand_as(self.values), self.values.abs(), "amax")

    def squares(self, axis: int, into: Tensor) -> Tensor:
        """(B, k) sums of squares of each row or column, added to `into`."""
        by = self.columns if axis else self.rows
        return into.scatter_add(1, by.expand_as(self.values), self.values**2)

    def counts(self, axis: int, size: int) -> Tensor:
        """(size,) how many are stored in each row or column."""
        return torch.bincount(self.columns if axis else self.rows, minlength=size)


class _Full(NamedTuple):
    """A batch of dense matrices; reductions along an axis are three times as fast as those over lists of entries."""

    values: Tensor
    """(B or 1, rows, columns)"""
    rows: Tensor
    """(entries,) of the entries that count as stored."""
    columns: Tensor
    """(entries,)"""

    def scaled(self, left: Tensor, right: Tensor) -> _Full:
        """See `_Entries`."""
        return self._replace(values=left[:, :, None] * self.values * right[:, None, :])

    def largest(self, axis: int, into: Tensor) -> Tensor:
        """See `_Entries`."""
        if not self.values.shape[2 - axis]:
            return into
        return torch.maximum(into, torch.maximum(self.values.amax(2 - axis), -self.values.amin(2 - axis)))

    def squares(self, axis: int, into: Tensor) -> Tensor:
        """See `_Entries`."""
        return into + (self.values**2).sum(2 - axis)

    def counts(self, axis: int, size: int) -> Tensor:
        """See `_Entries`."""
        return torch.bincount(self.columns if axis else self.rows, minlength=size)


_Matrices = _Entries | _Full


class _Data(NamedTuple):
    """The data as the passes see them."""

    A: _Matrices
    P: _Matrices
    b: Tensor
    c: Tensor


_Norms = tuple[Tensor, Tensor, Tensor]
"""Norms of the rows (B, m), of the columns (B, n) and of the tau row and column (B, 1)."""


def equilibrate(data: Data, cone: ProductCone, patterns: Mapping[str, Pattern]) -> Scaling:
    """The diagonals for a batch.

    Args:
        data: the programs.
        cone: rows inside a block that is not separable get one scaling.
        patterns: of "A" and, unless P is None, "P": the entries that count.
    """
    with torch.no_grad():
        A = _entries(data.A, patterns["A"])
        nowhere = torch.empty(0, dtype=torch.int64, device=data.b.device)
        none = _Entries(data.b.new_empty(1, 0), nowhere, nowhere)
        P = none if data.P is None else _entries(data.P, patterns["P"])
        total = identity(data)
        current = _rescaled(_Data(A, P, data.b, data.c), total)  # gives shared matrices their batch axis
        for _ in range(RUIZ_PASSES):
            step = _step(_largest(current, cone))
            current, total = _rescaled(current, step), _product(total, step)
        return _product(total, _step(_root_mean_square(current, cone)))


def shared(data: Data, cone: ProductCone, patterns: Mapping[str, Pattern]) -> Scaling:
    """The diagonals from A and P alone, and a sigma per instance that brings the larger of b and c to size 1."""
    with torch.no_grad():
        one = data.A.ndim == 2 and (data.P is None or data.P.ndim == 2)
        rows = slice(0, 1) if one else slice(None)
        b, c = (torch.zeros_like(t[rows], dtype=data.A.dtype) for t in (data.b, data.c))
        D, E, _ = equilibrate(data._replace(b=b, c=c), cone, patterns)
        return with_sigma(data, D.to(data.b.dtype), E.to(data.b.dtype))


def with_sigma(data: Data, D: Tensor, E: Tensor) -> Scaling:
    """The scaling by these D and E of `shared`."""
    tau = torch.cat([D * data.b, E * data.c], 1).detach().abs().amax(1, keepdim=True)
    return Scaling(D, E, 1 / _limit(tau))


def _entries(matrix: Matrix, pattern: Pattern) -> _Matrices:
    if isinstance(matrix, Tensor):
        return _Full(matrix if matrix.ndim == 3 else matrix[None], *pattern.index(matrix.device))
    return _Entries(matrix.values if matrix.ndim == 3 else matrix.values[None], *pattern.index(matrix.values.device))


def _rescaled(data: _Data, step: Scaling) -> _Data:
    D, E, sigma = step
    return _Data(data.A.scaled(D, E), data.P.scaled(E, E), data.b * D * sigma, data.c * E * sigma)


def _product(one: Scaling, two: Scaling) -> Scaling:
    return Scaling(*(a * b for a, b in zip(one, two, strict=True)))


def _step(norms: _Norms) -> Scaling:
    return Scaling(*(1 / torch.sqrt(_limit(norm)) for norm in norms))


def _largest(data: _Data, cone: ProductCone) -> _Norms:
    """Infinity norms; P is symmetric, so its rows are its columns."""
    rows = data.A.largest(0, data.b.abs())
    columns = data.P.largest(1, data.A.largest(1, data.c.abs()))
    tau = torch.cat([data.b, data.c], 1).abs().amax(1, keepdim=True)
    return cone.share_within_blocks(rows, "max"), columns, tau


def _root_mean_square(data: _Data, cone: ProductCone) -> _Norms:
    """Root-mean-square norms over the stored entries."""
    n, m = data.c.shape[1], data.b.shape[1]
    row_count = data.A.counts(0, m) + 1
    column_count = data.A.counts(1, n) + data.P.counts(1, n) + 1
    rows = torch.sqrt(data.A.squares(0, data.b**2) / row_count)
    columns = data.P.squares(1, data.A.squares(1, data.c**2))
    tau = torch.maximum((data.b**2).sum(1) / max(m, 1), (data.c**2).sum(1) / n)
    return cone.share_within_blocks(rows, "mean"), torch.sqrt(columns / column_count), torch.sqrt(tau)[:, None]


def _limit(norm: Tensor) -> Tensor:
    return torch.where(norm < 1e-4, torch.ones_like(norm), norm.clamp(max=1e4))
