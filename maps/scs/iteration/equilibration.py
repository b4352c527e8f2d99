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
from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix, entries

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


def equilibrate(data: Data, cone: ProductCone, patterns: Mapping[str, Pattern]) -> Scaling:
    """The diagonals for a batch.

    Args:
        data: the programs.
        cone: rows inside a block that is not separable get one scaling.
        patterns: of "A" and, unless P is None, "P": the entries that count.
    """
    with torch.no_grad():
        A = _entries(data.A, patterns["A"])
        nowhere = torch.empty(0, dtype=torch.int64)
        none = _Entries(data.b.new_empty(1, 0), nowhere, nowhere)
        P = none if data.P is None else _entries(data.P, patterns["P"])
        total = identity(data)
        current = _rescaled(_Sparse(A, P, data.b, data.c), total)  # gives shared matrices their batch axis
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


def _entries(matrix: Matrix, pattern: Pattern) -> _Entries:
    values = entries(matrix, pattern)
    return _Entries(values if matrix.ndim == 3 else values[None], *pattern.index)


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
