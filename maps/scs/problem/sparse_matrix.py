"""Matrices of cone programs: dense tensors, or a sparsity pattern that a batch shares with values of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from maps.scs.problem.products import Compressed, Host, Layout, compressed, layout, product


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a matrix has stored entries, row by row, each place once."""

    rows: np.ndarray
    """(nnz,) int64, ascending; arrays, since a pattern must outlive a torch.func transform."""
    columns: np.ndarray
    """(nnz,) int64, ascending within a row."""
    shape: tuple[int, int]

    @classmethod
    def full(cls, rows: int, columns: int) -> Pattern:
        """Every place."""
        places = np.indices((rows, columns), dtype=np.int64).reshape(2, -1)
        return cls(places[0], places[1], (rows, columns))

    def index(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(rows, columns) as tensors there."""
        found = self._indices.get(device)
        if found is None:
            rows, columns = (torch.from_numpy(part).to(device) for part in (self.rows, self.columns))
            found = self._indices[device] = rows, columns
        return found

    def layout(self, device: torch.device) -> Layout:
        """For products there."""
        found = self._layouts.get(device)
        if found is None:
            found = self._layouts[device] = layout(self.rows, self.columns, self.shape).to(device)
        return found

    @cached_property
    def _indices(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    @cached_property
    def _layouts(self) -> dict[torch.device, Layout]:
        return {}

    @cached_property
    def compressed(self) -> Compressed:
        """For SciPy's products."""
        return compressed(self.rows, self.columns, self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.shape == other.shape and self._same(other)

    def __hash__(self) -> int:
        return hash((self.shape, len(self)))

    def _same(self, other: Pattern) -> bool:
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.columns, other.columns)


class SparseMatrix:
    """A batch of sparse matrices with one pattern, or one matrix.

    Args:
        values: (nnz,) shared, or (B, nnz), in the order of `pattern`.
        pattern: the places of the stored entries.

    Raises:
        ValueError: values that are not as many as the pattern's places.
    """

    def __init__(self, values: Tensor, pattern: Pattern) -> None:
        if values.ndim not in (1, 2) or values.shape[-1] != len(pattern):
            raise ValueError(
                f"values: expected ({len(pattern)},) or (B, {len(pattern)}) stored entries, got {tuple(values.shape)}"
            )
        self.values, self.pattern = values, pattern
        self._host = Host()

    @classmethod
    def of(cls, matrix: Any) -> SparseMatrix:
        """From a SciPy sparse matrix, or a list of them with one pattern; explicit zeros stay stored."""
        many = isinstance(matrix, list | tuple)
        parts = [one.tocsr(copy=True) for one in (matrix if many else [matrix])]
        for part in parts:
            part.sum_duplicates()
        coo = [part.tocoo() for part in parts]
        patterns = [Pattern(c.row.astype(np.int64), c.col.astype(np.int64), c.shape) for c in coo]
        if different := [i for i, pattern in enumerate(patterns) if pattern != patterns[0]]:
            raise ValueError(
                f"expected matrices with one sparsity pattern, but that of instance {different[0]} differs"
            )
        values = torch.from_numpy(np.stack([c.data for c in coo]) if many else coo[0].data.copy())
        return cls(values if values.is_floating_point() else values.to(torch.float64), patterns[0])

    @property
    def ndim(self) -> int:
        """2 for one matrix, 3 for a batch."""
        return self.values.ndim + 1

    @property
    def shape(self) -> torch.Size:
        """(m, n) or (B, m, n)."""
        return torch.Size([*self.values.shape[:-1], *self.pattern.shape])

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype

    def to_dense(self) -> Tensor:
        """(m, n) or (B, m, n)."""
        m, n = self.pattern.shape
        rows, columns = self.pattern.index(self.values.device)
        flat = self.values.new_zeros(*self.values.shape[:-1], m * n)
        return flat.index_add(-1, rows * n + columns, self.values).unflatten(-1, (m, n))

    def scaled(self, left: Tensor, right: Tensor) -> SparseMatrix:
        """Row i times left[:, i], column j times right[:, j]; (B or 1, m), (B or 1, n)."""
        rows, columns = self.pattern.index(self.values.device)
        return SparseMatrix(self.values * left[:, rows] * right[:, columns], self.pattern)

    def product(self, vector: Tensor, *, transposed: bool) -> Tensor:
        """(B, n) -> (B, m); transposed (B, m) -> (B, n)."""
        if self.ndim == 3:
            return product(
                self.values, self.pattern.layout(vector.device), self.pattern.shape, vector, transposed=transposed
            )
        found = self._host.product(self.values, self.pattern, vector, transposed=transposed)
        if found is not None:
            return found
        rows, columns = self.pattern.index(vector.device)
        source, target = (rows, columns) if transposed else (columns, rows)
        size = self.pattern.shape[1 if transposed else 0]
        products = self.values * vector.index_select(1, source)
        return vector.new_zeros(vector.shape[0], size).index_add(1, target, products)

    def __repr__(self) -> str:
        return f"SparseMatrix(shape={tuple(self.shape)}, stored={len(self.pattern)})"


Matrix = Tensor | SparseMatrix
"""(m, n) shared by a batch, or (B, m, n)."""


# a pytree, so that the core can index, map and differentiate its values by name
pytree.register_pytree_node(
    SparseMatrix,
    lambda matrix: ([matrix.values], matrix.pattern),
    lambda values, pattern: _unflatten(list(values), pattern),
    flatten_with_keys_fn=lambda matrix: ([(pytree.GetAttrKey("values"), matrix.values)], matrix.pattern),
)


def _unflatten(values: list[Any], pattern: Pattern) -> SparseMatrix:
    matrix = object.__new__(SparseMatrix)
    (matrix.values,), matrix.pattern = values, pattern
    matrix._host = Host()
    return matrix


def times(matrix: Matrix, vector: Tensor) -> Tensor:
    """(B, m, n) or shared (m, n), times (B, n) -> (B, m)."""
    if isinstance(matrix, SparseMatrix):
        return matrix.product(vector, transposed=False)
    if matrix.ndim == 2:
        return vector @ matrix.mT
    return (vector[:, None] @ matrix.mT)[:, 0]  # a row times a matrix: 3 to 5 times faster than a matrix times a column


def transposed_times(matrix: Matrix, vector: Tensor) -> Tensor:
    """(B, m, n) or shared (m, n), transposed, times (B, m) -> (B, n)."""
    if isinstance(matrix, SparseMatrix):
        return matrix.product(vector, transposed=True)
    return times(matrix.mT, vector)


def rows_from(matrix: Matrix, first: int) -> Matrix:
    """The rows from `first` on."""
    if isinstance(matrix, SparseMatrix):
        start, pattern = _pattern_from(matrix.pattern, first)
        return SparseMatrix(matrix.values[..., start:], pattern)
    return matrix[..., first:, :]


@lru_cache(maxsize=64)
def _pattern_from(pattern: Pattern, first: int) -> tuple[int, Pattern]:
    """(how many entries lie before row `first`, the pattern of the rows from there on)."""
    start = int(np.searchsorted(pattern.rows, first))
    m, n = pattern.shape
    return start, Pattern(pattern.rows[start:] - first, pattern.columns[start:], (m - first, n))


def expanded(matrix: Matrix, batch: int) -> Matrix:
    """The matrix with a row per instance; what has them already stays as it is."""
    if matrix.ndim == 3:
        return matrix
    if isinstance(matrix, SparseMatrix):
        return SparseMatrix(matrix.values.expand(batch, -1), matrix.pattern)
    return matrix.expand(batch, -1, -1)


def to_dtype(matrix: Any, dtype: torch.dtype) -> Any:
    """The matrix in another floating dtype."""
    if isinstance(matrix, SparseMatrix):
        return matrix if matrix.dtype == dtype else SparseMatrix(matrix.values.to(dtype), matrix.pattern)
    return matrix.to(dtype)


def dense(matrix: Matrix) -> Tensor:
    """(m, n) or (B, m, n)."""
    return matrix.to_dense() if isinstance(matrix, SparseMatrix) else matrix


def sparse(matrix: Matrix, pattern: Pattern) -> SparseMatrix:
    """The entries at a pattern's places; what is sparse already stays as it is."""
    return SparseMatrix(entries(matrix, pattern), pattern)


def symmetrized(matrix: Matrix) -> Matrix:
    """(P + P') / 2, so that a gradient in a symmetric matrix comes out symmetric; as it is on an asymmetric pattern."""
    if isinstance(matrix, Tensor):
        return (matrix + matrix.mT) / 2
    rows, columns = matrix.pattern.rows, matrix.pattern.columns
    order = np.lexsort((rows, columns))
    if not np.array_equal(rows[order], columns) or not np.array_equal(columns[order], rows):
        return matrix
    return SparseMatrix(
        (matrix.values + matrix.values[..., torch.from_numpy(order).to(matrix.values.device)]) / 2, matrix.pattern
    )


def entries(matrix: Matrix, pattern: Pattern) -> Tensor:
    """(nnz,) or (B, nnz) the entries at a pattern's places (of a sparse matrix: its own)."""
    if isinstance(matrix, SparseMatrix):
        return matrix.values
    rows, columns = pattern.index(matrix.device)
    return matrix[..., rows, columns]
