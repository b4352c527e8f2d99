"""The problem of the layer benchmark (`cvxpy_family.py`), which its settings are searched on too (`engine/ours.py`)."""

from __future__ import annotations

import cvxpy as cp
import torch
from torch import Tensor

SIZE = (20, 30)
"""Variables and rows of the layer that is measured."""
SEARCHED, MEASURED = 0, 1
"""Seeds: of the instances that settings are chosen on, and of those that are timed."""


def nonnegative_lasso(n: int, m: int) -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """Min ||A x - b||^2 + lambda sum x over x >= 0, in A (m, n), b (m) and lambda."""
    A, b, weight = cp.Parameter((m, n), name="A"), cp.Parameter(m, name="b"), cp.Parameter(nonneg=True, name="weight")
    x = cp.Variable(n, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.sum(x)), [x >= 0]), [A, b, weight], x


def draw(batch: int, n: int, m: int, seed: int = MEASURED) -> list[Tensor]:
    """Values of A (batch, m, n), b (batch, m) and lambda (batch)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, m, n), (batch, m), (batch,))
    A, b, weight = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [A, b, 0.5 + weight.sigmoid()]
