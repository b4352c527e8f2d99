"""Through every step of the solve."""

from __future__ import annotations

from torch import Tensor

from fixedpoint.gradients.strategy import GradientStrategy
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.task import SolveTask


class Unrolled(GradientStrategy):
    """`gradient="unroll"`: torch records the loop itself.

    Ill-conditioned through Anderson acceleration near the solution, where its least squares is nearly singular; memory
    grows with the evaluations.
    """

    reaches_start = True

    def solve(self, task: SolveTask, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        """See `GradientStrategy.solve`."""
        return task.run(parts, start)
