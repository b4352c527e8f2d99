"""A way to differentiate is one object: the shipped ones, and one of a user's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.gradients.choice import strategy
from fixedpoint.gradients.implicit import Implicit, Undifferentiated
from fixedpoint.gradients.strategy import GradientStrategy
from fixedpoint.gradients.unrolled import Unrolled
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.task import SolveTask
from maps.affine import Affine, AffineProblem


class OneStep(GradientStrategy):
    """The derivative of one plain step at the solution, without that of x."""

    def solve(self, task: SolveTask, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        solved = strategy(None).solve(task, parts, start)
        context = task.map.setup(task.with_parts(parts))
        step = task.map.forward(solved.x, context)
        return solved._replace(x=solved.x + step - step.detach())


def problem(b: Tensor) -> AffineProblem:
    A = torch.tensor([[[0.5, 0.1], [0.0, 0.25]]], dtype=torch.float64).expand(len(b), 2, 2)
    return AffineProblem(A, b)


B = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]], dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"chunk": 2}])
def test_a_strategy_of_ones_own_is_an_object(options: dict[str, Any]) -> None:
    b = B.clone().requires_grad_()
    solution = fp.solve(Affine(2), problem(b), gradient=OneStep(), **options)
    assert torch.allclose(solution.x, fp.solve(Affine(2), problem(B)).x)
    (gradient,) = torch.autograd.grad(solution.x.sum(), b)
    assert torch.equal(gradient, torch.ones_like(b)), "df/db is the identity"


@pytest.mark.parametrize(("name", "kind"), [(None, Undifferentiated), ("implicit", Implicit), ("unroll", Unrolled)])
def test_names_stand_for_strategies(name: Any, kind: type[GradientStrategy]) -> None:
    assert type(strategy(name)) is kind
    assert strategy(kind()) is not None


@pytest.mark.parametrize("wrong", ["unrolled", 3, [], OneStep])
def test_other_names_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r'^gradient: expected None, "implicit", "unroll" or Truncated\(steps\), got'):
        fp.solve(Affine(2), problem(B), gradient=wrong)


class Simple(Affine):
    """With a rule of its own for the implicit gradient that knows nothing of outputs."""

    def implicit_vjp(self, x_star: Tensor, context: Any, cotangent: Tensor) -> Any:  # type: ignore[override]
        return super().implicit_vjp(x_star, context, cotangent)


class Doubled(Affine):
    def output(self, evaluation: Any, aux: Any, context: Any) -> Tensor:
        return 2 * evaluation.x * context.rows.b


class SimplyDoubled(Doubled, Simple):
    pass


def test_a_rule_without_outputs_gets_them_as_cotangents_of_x() -> None:
    found = []
    for map in (Doubled(2), SimplyDoubled(2)):
        b = B.clone().requires_grad_()
        solution = fp.solve(map, problem(b), tolerance=1e-12, gradient="implicit")
        found.append(torch.autograd.grad((solution.output + solution.x).sum(), b)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)
    inverse = torch.linalg.inv(torch.eye(2, dtype=torch.float64) - problem(B).A[0])
    x = B @ inverse.mT
    torch.testing.assert_close(found[0], 2 * x + (2 * B + 1) @ inverse, rtol=1e-9, atol=1e-9)
