"""What the maps on graphs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fixedpoint import Assessment, Context, Status


def batch_size(problem: Any, ranks: Mapping[str, int], nodes: int) -> int:
    """B; shapes are checked.

    Raises:
        ValueError: a part that does not fit the number of nodes.
    """
    for name, rank in ranks.items():
        shape = tuple(getattr(problem, name).shape)
        if shape[len(shape) - rank :] != (nodes,) * rank:
            raise ValueError(f"{name}: expected {(nodes,) * rank} per instance, got shape {shape}")
    return next(leaf.shape[0] for leaf, rank in zip(problem, ranks.values(), strict=True) if leaf.ndim > rank)


def graph_of(context: Context, own: Any) -> Any:
    """What belongs to the graph: of each instance, or shared."""
    return context.shared if own is None else own


def through(x: Tensor, matrix: Tensor) -> Tensor:
    """(B, n) x' M, M shared or one for each row."""
    return x @ matrix if matrix.ndim == 2 else (x[:, None] @ matrix)[:, 0]


def solve(matrix: Tensor, rhs: Tensor) -> Tensor:
    """(..., n) matrix^{-1} rhs, either of the two shared."""
    rhs = rhs.expand(*torch.broadcast_shapes(matrix.shape[:-1], rhs.shape))
    matrix = matrix.expand(*rhs.shape, rhs.shape[-1])
    return torch.linalg.solve(matrix, rhs[..., None])[..., 0]


def running(residual: Tensor) -> Assessment:
    """An assessment without verdicts."""
    return Assessment(residual, torch.full_like(residual, Status.RUNNING, dtype=torch.int64))
