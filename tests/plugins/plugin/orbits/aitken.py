"""Aitken's process for vectors (Irons & Tuck 1969)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint import Accelerator, Evaluation


class State(NamedTuple):
    residual: Tensor  # (B, n) at the last point
    length: Tensor  # (B, 1) of the last step


class Aitken(Accelerator):
    """Next x = x + length * residual, the length that would have cancelled the last change of the residual."""

    uses_features = False

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, State]:
        return x0, State(torch.zeros_like(x0), torch.ones_like(x0[:, :1]))

    def step(self, at: Evaluation, state: State) -> tuple[Tensor, State]:
        change = at.residual - state.residual
        size = (change * change).sum(1, keepdim=True)
        secant = -state.length * (change * state.residual).sum(1, keepdim=True) / torch.where(size > 0, size, 1.0)
        length = torch.where(secant > 0, secant, 1.0)  # a plain step at first, and where the secant says nothing
        return at.x + length * at.residual, State(at.residual, length)
