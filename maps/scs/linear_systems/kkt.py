"""A symmetric linear operator that torch cannot see into (a host factorization, an iterative solver)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fixedpoint.tensors.masks import is_constant
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix, times, transposed_times

Operator = Callable[..., Tensor]
"""(right (B, k), *tensors (B, ...)) -> (B, k): linear and symmetric in `right`, rows independent."""


def apply(operator: Operator, right: Tensor, *tensors: Tensor) -> Tensor:
    """operator(right, *tensors), its tensors held constant: see `Constant`."""
    if all(is_constant(t) for t in (right, *tensors[:1])):  # factors are of one kind
        return operator(right, *tensors)  # autograd.Function.apply alone takes a quarter of a millisecond
    return Constant.apply(operator, right, *tensors)


class Constant(torch.autograd.Function):
    """operator(right, *tensors) with the tensors held constant: its derivative in any direction is itself.

    Rows are independent, so that a mapped axis joins the batch.
    """

    @staticmethod
    def forward(operator: Operator, right: Tensor, *tensors: Tensor) -> Tensor:
        """The operator's value."""
        return operator(right.detach(), *(t.detach() for t in tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the operator and its constants."""
        ctx.operator, _, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        """The operator, which is symmetric."""
        return None, Constant.apply(ctx.operator, cotangent, *ctx.saved_tensors), *(None for _ in ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor | None, *others: Any) -> Tensor:
        """The operator, which is linear."""
        assert tangent is not None
        return Constant.apply(ctx.operator, tangent, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operator: Operator, *tensors: Tensor) -> tuple[Tensor, int]:
        """The mapped axis as further rows."""
        rows = (t.flatten(0, 1) for t in mapped_first(info.batch_size, in_dims[1:], tensors))
        return Constant.apply(operator, *rows).unflatten(0, (info.batch_size, -1)), 0


def mapped_first(size: int, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The tensors with the axis that vmap maps (of this size) in front; those without it get it."""
    return [
        t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, in_dims, strict=True)
    ]


def kkt_product(A: SparseMatrix, P: SparseMatrix | None, R_y: Tensor, rho_x: float, vector: Tensor) -> Tensor:
    """(B, n + m) K vector."""
    m, n = A.pattern.shape
    p, q = vector.split([n, m], 1)
    top = rho_x * p + transposed_times(A, q)
    return torch.cat([top if P is None else top + times(P, p), times(A, p) - R_y * q], 1)


def host(A: SparseMatrix, P: SparseMatrix | None, R_y: Tensor, rho_x: float) -> Any:
    """One K as a SciPy matrix, column by column."""
    from scipy import sparse

    m, n = A.pattern.shape
    starts, rows, (diagonal, of_P, of_A, of_transpose) = _places(A.pattern, None if P is None else P.pattern)
    values, weights = A.values.detach().numpy(), R_y.detach().numpy()
    data = np.zeros(len(rows), dtype=weights.dtype)
    data[of_A], data[of_transpose] = values, values
    data[diagonal[:n]], data[diagonal[n:]] = rho_x, -weights
    if P is not None:
        data[of_P] += P.values.detach().numpy()
    return sparse.csc_array((data, rows, starts), shape=(n + m, n + m))


@lru_cache(maxsize=64)
def _places(A: Pattern, P: Pattern | None) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """(starts of K's columns, row of each entry, where the diagonal, P, A and A' are among these); found once, since it
    takes longer than to factor a small K.
    """
    m, n = A.shape
    every, nothing = np.arange(n + m), np.empty(0, dtype=np.int64)
    parts = [
        (every, every),
        (nothing, nothing) if P is None else (P.rows, P.columns),
        (A.rows + n, A.columns),
        (A.columns, A.rows + n),
    ]
    found, places = np.unique(np.concatenate([column * (n + m) + row for row, column in parts]), return_inverse=True)
    starts = np.searchsorted(found, (n + m) * np.arange(n + m + 1))
    ends = np.cumsum([len(row) for row, _ in parts])[:-1]
    return starts.astype(np.int32), (found % (n + m)).astype(np.int32), tuple(np.split(places, ends))
