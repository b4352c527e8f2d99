"""How a solution is differentiated: the interface of a strategy, and the choice of one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.task import SolveTask


class GradientStrategy(ABC):
    """One way to differentiate a solve: `gradient=` of `fixedpoint.solve`, by name or as an object."""

    reaches_start: bool = False
    """Whether the result has a derivative with respect to the start."""

    @abstractmethod
    def solve(self, task: SolveTask, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        """`task.run(parts, start)`, differentiable this way with respect to the parts.

        Args:
            task: the solve.
            parts: the problem's tensors by name.
            start: as for `SolveTask.run`.
        """

    def check(self, parts: dict[str, Tensor], start: Tensor | None) -> None:
        """Refuse gradients that would silently be zero.

        Raises:
            ValueError: the start requires grad, on which a fixed point does not depend.
        """
        if torch.is_grad_enabled() and not self.reaches_start and start is not None and start.requires_grad:
            raise ValueError(
                "start: its gradient through a fixed point is exactly zero (the solution does not depend on it); "
                'train a start through gradient="unroll" or fixedpoint.unroll'
            )
