"""Nesterov's momentum as FISTA has it, with adaptive restart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint import Accelerator, Evaluation


class MomentumState(NamedTuple):
    """What momentum remembers of each instance."""

    previous: Tensor
    """(B, n) the last f(x)."""
    best: Tensor
    """(B,) the smallest residual norm so far, in the metric."""
    weight: Tensor
    """(B,) FISTA's t; 1 right after a restart."""
    metric: Tensor
    """(B, n) diagonal metric of the restart test."""


class Momentum(Accelerator):
    """FISTA-style momentum: next x = f(x) + (t - 1)/t+ (f(x) - previous f(x)).

    t+ = (1 + sqrt(1 + 4 t^2))/2 (Beck & Teboulle 2009). An instance restarts (t = 1) when the step turns against the
    residual, <f(x) - x, f(x) - previous f(x)> < 0: the gradient scheme of O'Donoghue & Candès (2015). It also restarts
    while the residual is above its best: on a map that is more than 2/3-averaged (a gradient step longer than 1/L)
    momentum would diverge.
    """

    uses_features = False

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, MomentumState]:
        """Start at x0; the first step has no momentum."""
        metric = torch.ones_like(x0) if metric is None else metric.expand_as(x0)
        one = torch.ones_like(x0[:, 0])
        return x0, MomentumState(x0, torch.inf * one, one, metric)

    def step(self, at: Evaluation, state: MomentumState) -> tuple[Tensor, MomentumState]:
        """Extrapolate along the last change of f(x)."""
        change = at.fx - state.previous
        size = torch.sqrt((state.metric * at.residual * at.residual).sum(1))
        against = ((state.metric * at.residual * change).sum(1) < 0) | (size > state.best)
        weight = torch.where(against, torch.ones_like(state.weight), state.weight)
        following = (1 + torch.sqrt(1 + 4 * weight**2)) / 2
        push = (weight - 1) / following
        return at.fx + push[:, None] * change, MomentumState(
            at.fx, torch.minimum(size, state.best), following, state.metric
        )
