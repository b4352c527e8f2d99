"""Products of a batch of vectors with sparse matrices: one matrix, or one of the same pattern for every vector."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint.masks import constant

_LONG, _FULL = 8, 512
"""Entries of a row, and of a block, from which on a dense product is worth it."""


class Layout(NamedTuple):
    """A pattern's stored entries as a full block and the rest. Tensors are int64."""

    block: Tensor
    """(r, c) places of the block's entries among the values; (0, 0) where there is none."""
    rows: Tensor
    """(r,)"""
    columns: Tensor
    """(c,)"""
    stride: int
    """Where every row of the block is stored in one piece, `stride` places after the last; else 0."""
    rest: Tensor
    """Places of the other entries."""
    rest_rows: Tensor
    rest_columns: Tensor

    def view(self, values: Tensor) -> Tensor:
        """(B, nnz) -> (B, r, c), copied only where it must be."""
        r, c = self.block.shape
        if not self.stride:
            return values[:, self.block.flatten()].unflatten(1, (r, c))
        first = int(self.block[0, 0])
        return values[:, first : first + r * self.stride].unflatten(1, (r, self.stride))[:, :, :c]


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
    stride = int(block[1, 0] - block[0, 0]) if r > 1 else 0
    if stride:
        regular = block[0, 0] + stride * np.arange(r)[:, None] + np.arange(c)
        stride = stride if np.array_equal(block, regular) and block[0, 0] + r * stride <= len(rows) else 0
    rest = np.flatnonzero(~inside)

    def index(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part.astype(np.int64))

    others = index(rest), index(rows[rest]), index(columns[rest])
    return Layout(index(block), index(long_rows), index(full), stride, *others)


def product(values: Tensor, places: Layout, shape: tuple[int, int], vector: Tensor, *, transposed: bool) -> Tensor:
    """(B, nnz) values times (B, n) -> (B, m); transposed: (B, m) -> (B, n)."""
    source, target = places.rest_columns, places.rest_rows
    inner, outer, size = places.columns, places.rows, shape[0]
    if transposed:
        source, target, inner, outer, size = target, source, outer, inner, shape[1]
    rest = values if not len(places.block) else values[:, places.rest]
    found = vector.new_zeros(len(vector), size).index_add(1, target, rest * vector[:, source])
    if not len(places.block):
        return found
    block = places.view(values)
    product = vector[:, None, inner] @ (block if transposed else block.mT)
    return found.index_add(1, outer, product[:, 0])


class Host:
    """One matrix as SciPy's, made when it is first needed, and anew when its values were changed in place."""

    def __init__(self) -> None:
        self._made: tuple[int, Any, Any] | None = None

    def product(self, values: Tensor, pattern: Any, vector: Tensor, *, transposed: bool) -> Tensor | None:
        """(nnz,) values times (B, n), or transposed; None where torch has to see it (derivatives, vmap, a device)."""
        if not (constant(values) and constant(vector)) or vector.device.type != "cpu":
            return None
        if self._made is None or self._made[0] != values._version:
            from scipy import sparse

            matrix = sparse.csr_matrix((values.numpy(), (pattern.rows, pattern.columns)), shape=pattern.shape)
            self._made = values._version, matrix, matrix.T.tocsr()
        matrix = self._made[2 if transposed else 1]
        return torch.from_numpy(matrix @ np.ascontiguousarray(vector.numpy().T)).mT.contiguous()
