"""Learned relaxation and momentum: for every evaluation k and coordinate i a gain and a push of their own.

    x+ = f(x) + gain_k (f(x) - x) + push_k (f(x) - f of the evaluation before, or x at the first)

Both are numbers that training chose, so that a step costs two products elementwise: nothing to solve, no network, no
history but the last f(x). With one number for all coordinates this is what Sambharya & Stellato ("Learning algorithm
hyperparameters for fast parametric convex optimization", 2024) learn for each iteration; that a coordinate has its own
is a learned diagonal preconditioner that changes from step to step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fixedpoint import Evaluation, Signature
from fixedpoint.learning.learned import Learned, require_counts, require_flags
from fixedpoint.tensors.masks import any_row, is_readable, where_rows


class LearnedMomentumState(NamedTuple):
    """What is remembered of each instance."""

    previous: Tensor
    """(B, n) the last f(x) whose step was learned; of no meaning before that."""
    seen: Tensor
    """(B,) int64, evaluations seen."""


class LearnedMomentum(Learned):
    """Learned relaxation and momentum for the first `steps` evaluations; then the plain iteration.

    Untrained, it is the plain iteration throughout.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        steps: evaluations whose step is learned.
        coordinates: whether every coordinate has a gain and a push of its own; if not, it serves maps of every size
            that agree in all else.
        seed: unused, nothing is random here; all learned accelerators have it.

    Raises:
        ValueError: an argument outside its range.
    """

    uses_features = False
    promises = frozenset({"scale-invariant"})

    def __init__(
        self, signature: Signature | None = None, steps: int = 12, coordinates: bool = True, seed: int = 0
    ) -> None:
        require_counts(steps=steps)
        require_flags(coordinates=coordinates)
        super().__init__(signature, seed)
        self.steps, self.coordinates, self.size_free = steps, coordinates, not coordinates
        self.construct()

    def build(self, signature: Signature) -> None:
        """Gains and pushes, zero."""
        size = signature.size if self.coordinates else 1
        self.gain = nn.Parameter(torch.zeros(self.steps, size))
        self.push = nn.Parameter(torch.zeros(self.steps, size))

    def init(
        self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None
    ) -> tuple[Tensor, LearnedMomentumState]:
        """Start at x0."""
        return x0, LearnedMomentumState(x0, torch.zeros_like(x0[:, 0], dtype=torch.int64))

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> LearnedMomentumState:
        """The plain iteration."""
        return LearnedMomentumState(x0, torch.full_like(x0[:, 0], self.steps, dtype=torch.int64))

    def step(self, at: Evaluation, state: LearnedMomentumState) -> tuple[Tensor, LearnedMomentumState]:
        """See the module."""
        over = state.seen >= self.steps
        settled = LearnedMomentumState(at.fx, state.seen + 1)
        if is_readable(over) and bool(over.all()):
            return at.fx, settled
        now = state.seen.clamp(max=self.steps - 1)
        gain, push = (_rows(table.to(at.x.dtype), now) for table in (self.gain, self.push))
        previous = where_rows(state.seen == 0, at.x, state.previous)
        following = torch.addcmul(torch.addcmul(at.fx, gain, at.residual), push, at.fx - previous)
        return where_rows(over, at.fx, following) if any_row(over) else following, settled


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """(B, n) `table[index]`; (1, n) where all are the same, which most often they are."""
    if is_readable(index) and bool((index == index[0]).all()):
        return table[index[0]][None]
    return table[index]
