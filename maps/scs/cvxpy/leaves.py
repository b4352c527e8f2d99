"""What CVXPY makes of variables and parameters with attributes: a shorter vector of the entries that are free."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

SYMMETRIC = ("symmetric", "PSD", "NSD")


def places(leaf: Any) -> np.ndarray:
    """(*shape) int64: the entry of the reduced vector that each entry of a leaf is, -1 where it is always 0.

    CVXPY reduces symmetric matrices to the upper triangle, row by row, diagonal ones to the diagonal and sparse ones to
    their stored entries; everything else is taken column by column.
    """
    shape, attributes = leaf.shape, leaf.attributes
    found = np.full(shape, -1, dtype=np.int64)
    if attributes["diag"]:
        np.fill_diagonal(found, np.arange(shape[0]))
    elif any(attributes[name] for name in SYMMETRIC):
        n, many = shape[-1], shape[:-2]
        triangle = np.zeros((n, n), dtype=np.int64)
        triangle[np.triu_indices(n)] = np.arange(n * (n + 1) // 2)
        triangle = np.maximum(triangle, triangle.T)
        numbered = np.arange(int(np.prod(many)) * (n * (n + 1) // 2))
        found = numbered.reshape((*many, n * (n + 1) // 2), order="F")[..., triangle]
    elif attributes["sparsity"]:
        found[leaf.sparse_idx] = np.arange(len(leaf.sparse_idx[0]))
    else:
        found = np.arange(leaf.size).reshape(shape, order="F")
    return found


def expansion(leaf: Any) -> sparse.csr_array:
    """(size, reduced size) the matrix from the reduced vector to the leaf, row by row."""
    found = places(leaf).ravel()
    there = np.flatnonzero(found >= 0)
    shape = (found.size, int(found.max(initial=-1)) + 1)
    return sparse.csr_array((np.ones(len(there)), (there, found[there])), shape=shape)


def reduction(leaf: Any) -> sparse.csr_array:
    """(reduced size, size) from the leaf, row by row, to the reduced vector.

    Entries that are equal share their weight, so that a gradient in a symmetric matrix comes out symmetric.
    """
    spread = sparse.csr_array(expansion(leaf).T)
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(spread.sum(axis=1), 1)) @ spread)


def by_columns(leaf: Any) -> sparse.csr_array:
    """(size, size) the permutation from a leaf row by row to the same column by column."""
    order = np.arange(leaf.size).reshape(leaf.shape).ravel(order="F")
    return sparse.csr_array((np.ones(leaf.size), (np.arange(leaf.size), order)), shape=(leaf.size, leaf.size))
