"""Through a few plain steps at the solution."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import torch
from torch import Tensor

from fixedpoint.gradients.differentiable_solve import solve
from fixedpoint.gradients.strategy import GradientStrategy
from fixedpoint.solution import Evaluation, Status
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.screening import blank
from fixedpoint.solve.task import SolveTask
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_readable


@dataclass(frozen=True)
class Truncated(GradientStrategy):
    """`gradient=Truncated(steps)`: differentiate the last `steps` plain evaluations at the solution only.

    Equals the first `steps` terms of the Neumann series of the implicit gradient; memory does not grow with the
    number of evaluations.
    """

    steps: int
    """At least 1."""

    def check(self, parts: dict[str, Tensor], start: Tensor | None) -> None:
        """See `GradientStrategy.check`.

        Raises:
            ValueError: fewer than 1 step.
        """
        if isinstance(self.steps, bool) or not isinstance(self.steps, numbers.Integral) or self.steps < 1:
            raise ValueError(f"gradient: Truncated(steps) expects at least 1 step, got {self.steps!r}")
        super().check(parts, start)

    def solve(self, task: SolveTask, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        """See `GradientStrategy.solve`: the numbers of the solve, with the derivative of the steps."""
        solved = solve(task, {name: t.detach() for name, t in parts.items()}, start)
        map, problem, x = task.map, task.with_parts(parts), solved.x
        invalid = solved.status == Status.INVALID
        marked = is_readable(invalid) and bool(invalid.any())
        if marked:
            problem = pytrees.replace_rows(problem, map.ranks, invalid)
            x = torch.where(invalid[:, None], x[torch.argmin(invalid.to(torch.int8))], x)
        context = map.setup(problem)
        for _ in range(self.steps):
            x = map.forward(map.retract(x, context), context)
        x = map.retract(x, context)
        fx, aux = map.evaluate(x, context)
        output = map.output(Evaluation(x, fx, fx - x), aux, context)

        def attach(value: Tensor, path: Tensor) -> Tensor:
            return value + (path - path.detach()) if value.is_floating_point() else value

        result = solved._replace(x=attach(solved.x, x), output=pytrees.transform(attach, solved.output, output))
        return blank(result, invalid) if marked else result
