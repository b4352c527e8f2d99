"""Affine contractions x <- A x + b: the map whose every answer is known."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from fixedpoint import Context, FixedPointMap, ProblemFamily, Signature


class AffineProblem(NamedTuple):
    """f(x) = A x + b."""

    A: Tensor
    """(n, n) shared by the batch, or (B, n, n). Its spectral norm must be below 1 for a contraction."""
    b: Tensor
    """(n,) or (B, n)."""


class _Rows(NamedTuple):
    A: Tensor | None
    b: Tensor


class Affine(FixedPointMap[AffineProblem, Context]):
    """f(x) = A x + b, started at 0. A single problem has A (n, n) and b (n,).

    Args:
        size: n.
    """

    ranks: ClassVar = {"A": 2, "b": 1}

    def __init__(self, size: int = 10) -> None:
        self.signature = Signature(
            size=size,
            features=0,
            traits=frozenset({"contractive", "nonexpansive"}),
            coordinates={"map": "affine"},
        )

    def setup(self, problem: AffineProblem) -> Context:
        """Declare what is shared.

        Raises:
            ValueError: A or b of the wrong size.
        """
        n = self.signature.size
        for name, leaf, shape in (("A", problem.A, (n, n)), ("b", problem.b, (n,))):
            if tuple(leaf.shape[-len(shape) :]) != shape:
                raise ValueError(f"{name}: expected {shape} per instance, got shape {tuple(leaf.shape)}")
        shared = problem.A.ndim == 2
        b = problem.b if problem.b.ndim == 2 else problem.b.expand(problem.A.shape[0], n)
        return Context(
            rows=_Rows(None if shared else problem.A, b),
            shared=problem.A if shared else None,
            problem=problem,
        )

    def initial(self, context: Context) -> Tensor:
        """Zero."""
        return torch.zeros_like(context.rows.b)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """A x + b."""
        if context.shared is not None:
            return x @ context.shared.mT + context.rows.b
        return (x[:, None] @ context.rows.A.mT)[:, 0] + context.rows.b


class RandomAffine(ProblemFamily):
    """Random affine contractions with spectral norm `rate`, a matrix of its own for each instance.

    Args:
        size: n.
        rate: the contraction factor, in (0, 1).

    Raises:
        ValueError: rate outside (0, 1).
    """

    def __init__(self, size: int = 10, rate: float = 0.95) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"rate: expected a number in (0, 1), got {rate}")
        self.map, self.rate = Affine(size), rate

    def sample(self, batch: int, *, generator: torch.Generator) -> AffineProblem:
        """A with singular values spread evenly over [0, rate]; b standard normal. float64."""
        n = self.map.signature.size
        left, right = (
            torch.linalg.qr(torch.randn(batch, n, n, generator=generator, dtype=torch.float64))[0] for _ in "lr"
        )
        values = torch.linspace(0, self.rate, n, dtype=torch.float64, device="cpu")
        b = torch.randn(batch, n, generator=generator, dtype=torch.float64)
        return AffineProblem((left * values) @ right, b)

    def reference(self, problem: AffineProblem) -> Tensor:
        """(I - A)^{-1} b."""
        identity = torch.eye(problem.A.shape[-1], dtype=problem.A.dtype, device=problem.A.device)
        return torch.linalg.solve(identity - problem.A, problem.b[:, :, None])[:, :, 0]
