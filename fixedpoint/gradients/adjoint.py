"""Gradients of a fixed point with respect to its problem, by the implicit function theorem.

At x* = f(x*; problem), with J = d(f o retract)/dx, the chain rule gives

    d<c, x*>/dproblem = (df/dproblem)^T w   where   (I - J)^T w = c.

`implicit_vjp` serves every map: `torch.func.vjp` supplies the products with J^T, a batched GMRES solves for w.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fixedpoint.context import Context
from fixedpoint.gradients.linear_solver import gmres
from fixedpoint.gradients.warnings import warn_untrusted
from fixedpoint.solution import Evaluation
from fixedpoint.tensors import pytrees


def implicit_vjp(map: Any, x_star: Tensor, context: Any, cotangent: Tensor, of_output: tuple[Tensor, ...] = ()) -> Any:
    """The default of `FixedPointMap.implicit_vjp`: see there for meaning, shapes and warnings.

    Raises:
        ValueError: the map's `setup` did not keep the problem in `Context.problem`.
    """
    problem = problem_of(map, context)
    if of_output:
        cotangent, direct = through_output(map, problem, x_star, cotangent, of_output)
    pull_x = torch.func.vjp(lambda x: map.forward(map.retract(x, context), context), x_star)[1]
    rtol = 1e-12 if x_star.dtype == torch.float64 else 1e-6
    solved = gmres(lambda w: w - pull_x(w)[0], cotangent, rtol=rtol)
    warn_untrusted(solved.residual)

    def of_problem(values: dict[str, Tensor]) -> Tensor:
        prepared = map.setup(pytrees.replace(problem, values))
        return map.forward(map.retract(x_star, prepared), prepared)

    gradients = torch.func.vjp(of_problem, _floating(problem))[1](solved.x)[0]
    if of_output:
        gradients = {name: gradient + direct[name] for name, gradient in gradients.items()}
    return pytrees.replace(problem, gradients)


def through_output(
    map: Any, problem: Any, x_star: Tensor, cotangent: Tensor, of_output: tuple[Tensor, ...]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cotangents of (retract(x*), output) as one (B, n) of x*, and what reaches the problem's leaves directly."""

    def observed(x: Tensor, values: dict[str, Tensor]) -> tuple[Tensor, ...]:
        prepared = map.setup(pytrees.replace(problem, values))
        point = map.retract(x, prepared)
        fx, aux = map.evaluate(point, prepared)
        output = map.output(Evaluation(point, fx, fx - point), aux, prepared)
        return point, *pytrees.tensors(output).values()

    of_x, direct = torch.func.vjp(observed, x_star, _floating(problem))[1]((cotangent, *of_output))
    return of_x, direct


def problem_of(map: Any, context: Any) -> Any:
    """The problem that a context was made from.

    Raises:
        ValueError: it did not keep it.
    """
    problem = context.problem if isinstance(context, Context) else context
    if problem is None:
        raise ValueError(
            f"{type(map).__name__}.setup: the Context it returns must carry `problem=` for implicit gradients"
        )
    return problem


def _floating(problem: Any) -> dict[str, Tensor]:
    """The leaves that may have a gradient."""
    return {name: t for name, t in pytrees.tensors(problem).items() if t.is_floating_point()}
