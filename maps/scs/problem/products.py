"""Products of a batch of vectors with sparse matrices: one matrix, or one of the same pattern for every vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint.tensors.masks import in_place_version, is_constant

_LONG, _FULL = 8, 512
"""Entries of a row, and of a block, from which on a dense product is worth it."""

_MANY = 8
"""Rows of a vector from which on SciPy is faster than torch."""
BLOCK = 128
"""Rows of a vector at once in `blockwise`."""


class Block(NamedTuple):
    """A full block of a sparse matrix."""

    places: Tensor
    """(r, c) int64, of its entries among the values; (0, 0) where there is none."""
    stride: int
    """Where every row of the block is stored in one piece, `stride` places after the last; else 0."""

    @classmethod
    def of(cls, places: np.ndarray, stored: int) -> Block:
        """The block with these places among so many stored entries."""
        r, c = places.shape
        stride = int(places[1, 0] - places[0, 0]) if r > 1 and c else 0
        if stride > 0:
            regular = places[0, 0] + stride * np.arange(r)[:, None] + np.arange(c)
            stride = stride if np.array_equal(places, regular) and places[0, 0] + r * stride <= stored else 0
        return cls(_index(places), max(stride, 0))

    def view(self, values: Tensor) -> Tensor:
        """(B, nnz) -> (B, r, c), copied only where it must be."""
        r, c = self.places.shape
        if not self.stride:
            return values.index_select(1, self.places.flatten()).unflatten(1, (r, c))
        first = int(self.places[0, 0])
        return values[:, first : first + r * self.stride].unflatten(1, (r, self.stride))[:, :, :c]


class Layout(NamedTuple):
    """A pattern's stored entries as a full block and the rest. Tensors are int64."""

    block: Block
    rows: Tensor
    """(r,)"""
    columns: Tensor
    """(c,)"""
    rest: Tensor
    """Places of the other entries."""
    rest_rows: Tensor
    rest_columns: Tensor

    def to(self, device: torch.device) -> Layout:
        """With its tensors there."""
        block = self.block._replace(places=self.block.places.to(device))
        return Layout(block, *(part.to(device) for part in self[1:]))


def _index(part: np.ndarray) -> Tensor:
    return torch.from_numpy(part.astype(np.int64))


def layout(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Layout:
    """The layout of a pattern: its block is the long rows times the columns that all of them have."""
    m, n = shape
    long_rows = np.flatnonzero(np.bincount(rows, minlength=m) >= _LONG)
    among = np.isin(rows, long_rows)
    full = np.flatnonzero(np.bincount(columns[among], minlength=n) == len(long_rows))
    if len(long_rows) * len(full) < _FULL:
        long_rows, full = long_rows[:0], full[:0]
    inside = np.isin(rows, long_rows) & np.isin(columns, full)
    r, c = len(long_rows), len(full)
    block = np.flatnonzero(inside).reshape(r, c)  # entries are row by row
    rest = np.flatnonzero(~inside)
    others = _index(rest), _index(rows[rest]), _index(columns[rest])
    return Layout(Block.of(block, len(rows)), _index(long_rows), _index(full), *others)


class Compressed(NamedTuple):
    """Where SciPy has a pattern's entries: row by row, which is the order they are stored in, and column by column."""

    starts: np.ndarray
    """(m + 1,) of the rows."""
    order: np.ndarray
    """(nnz,) entries column by column."""
    transposed: tuple[np.ndarray, np.ndarray]
    """Starts (n + 1,) of the columns, and the row of each entry."""


def compressed(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Compressed:
    """Of a pattern."""
    starts, starts_transposed = (
        np.concatenate([[0], np.cumsum(np.bincount(part, minlength=size))])
        for part, size in zip((rows, columns), shape, strict=True)
    )
    order = np.argsort(columns, kind="stable")
    return Compressed(starts, order, (starts_transposed, rows[order]))


def product(values: Tensor, places: Layout, shape: tuple[int, int], vector: Tensor, *, transposed: bool) -> Tensor:
    """(B, nnz) values times (B, n) -> (B, m); transposed: (B, m) -> (B, n)."""
    source, target = places.rest_columns, places.rest_rows
    inner, outer, size = places.columns, places.rows, shape[0]
    if transposed:
        source, target, inner, outer, size = target, source, outer, inner, shape[1]
    whole = places.rows.shape[0] == 0
    rest = values if whole else values.index_select(1, places.rest)  # `values[:, ...]` takes four times as long
    found = vector.new_zeros(len(vector), size).index_add(1, target, rest * vector.index_select(1, source))
    if whole:
        return found
    block = places.block.view(values)
    product = vector.index_select(1, inner)[:, None] @ (block if transposed else block.mT)
    return found.index_add(1, outer, product[:, 0])


class Host:
    """One matrix as SciPy's, made when it is first needed, and anew when its values were changed in place."""

    def __init__(self) -> None:
        self._made: tuple[int, Any, Any] | None = None

    def product(self, values: Tensor, pattern: Any, vector: Tensor, *, transposed: bool) -> Tensor | None:
        """(nnz,) values times (B, n), or transposed; None where torch has to see it (derivatives, vmap, a device),
        or is faster since there are few rows.
        """
        if len(vector) < _MANY or not (is_constant(values) and is_constant(vector)) or vector.device.type != "cpu":
            return None
        if self._made is None or self._made[0] != in_place_version(values):
            from scipy import sparse

            data, (starts, order, (starts_transposed, rows)) = values.detach().numpy(), pattern.compressed
            matrix = sparse.csr_matrix((data, pattern.columns, starts), shape=pattern.shape)
            transpose = sparse.csr_matrix((data[order], rows, starts_transposed), shape=pattern.shape[::-1])
            self._made = in_place_version(values), matrix, transpose
        matrix = self._made[2 if transposed else 1]
        return blockwise(
            lambda rows: torch.from_numpy(matrix @ np.ascontiguousarray(rows.numpy().T)).mT, vector.detach()
        )


def blockwise(function: Callable[[Tensor], Tensor], vector: Tensor) -> Tensor:
    """function(vector) (B, k), some rows at a time: products that transpose are slow beyond the cache."""
    if len(vector) <= BLOCK:
        return function(vector).contiguous()
    return torch.cat([function(rows) for rows in vector.split(BLOCK)])
