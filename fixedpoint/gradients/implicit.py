"""By the implicit function theorem at the solution, and no derivative at all."""

from __future__ import annotations

import torch
from torch import Tensor

from fixedpoint.gradients.differentiable_solve import solve
from fixedpoint.gradients.strategy import GradientStrategy
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.task import SolveTask


class Implicit(GradientStrategy):
    """`gradient="implicit"`: exact at the solution, memory of one evaluation (`FixedPointMap.implicit_vjp`)."""

    def solve(self, task: SolveTask, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        """See `GradientStrategy.solve`."""
        return solve(task, parts, start)


class Undifferentiated(GradientStrategy):
    """`gradient=None`: the problem is constant; torch.func.vmap still folds into the batch."""

    def solve(self, task: SolveTask, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        """See `GradientStrategy.solve`."""
        return solve(task, {name: t.detach() for name, t in parts.items()}, start)

    def check(self, parts: dict[str, Tensor], start: Tensor | None) -> None:
        """Refuse gradients that would be dropped.

        Raises:
            ValueError: a leaf, or the start, requires grad.
        """
        wanted = [name for name, t in parts.items() if t.requires_grad] if torch.is_grad_enabled() else []
        if wanted:
            raise ValueError(
                f'gradient: {", ".join(wanted)} require(s) grad, which gradient=None would drop; choose "implicit", '
                f'"unroll" or Truncated(steps), or solve under torch.no_grad()'
            )
        super().check(parts, start)
