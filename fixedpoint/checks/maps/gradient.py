"""The law of implicit gradients: what `solve` differentiates is how the solution changes.

The truth is made of function values alone. By the implicit function theorem the fixed point x moves by dx when the
problem moves by dp, where (I - J) dx = (df/dp) dp; J and df/dp are taken by differences here, so that neither a wrong
derivative nor a wrong `implicit_vjp` can agree with itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fixedpoint.checks.compare import cast, size
from fixedpoint.checks.maps.case import MapCase, map_law
from fixedpoint.checks.report import NotApplicable, Violation
from fixedpoint.checks.specimen import Plain
from fixedpoint.context import select_rows
from fixedpoint.gradients.linear_solver import gmres
from fixedpoint.gradients.warnings import AdjointWarning
from fixedpoint.protocol import FixedPointMap
from fixedpoint.solution import Evaluation
from fixedpoint.solve.front import solve
from fixedpoint.tensors import pytrees

_norm = torch.linalg.vector_norm
_STEP = 6e-6
"""Of central differences, relative to the change of the problem; the cube root of the double precision."""


class _Change(NamedTuple):
    """A change of one leaf of the problem."""

    leaf: Tensor
    """The change itself."""
    ahead: Any
    """The context of the problem + _STEP * change."""
    back: Any
    """The context of the problem - _STEP * change."""


@map_law("gradient")
def gradient(case: MapCase) -> None:
    """The implicit gradient of the output predicts, leaf by leaf, how the output of the solved problem changes."""
    case = MapCase(case.map, cast(case.taken(torch.arange(3)), torch.float64))
    x, settled = settle(case.map, case.context, case.map.initial(case.context))
    if not bool(settled.any()):
        raise NotApplicable("no fixed point was found in the checker's budget")
    case, x = MapCase(case.map, case.taken(torch.nonzero(settled).flatten())), x[settled]
    outputs = _output(case.map, case.context, x)
    scale = torch.stack([size(t) for t in outputs.values()]).amax(0)
    weights = {name: case.randn(*t.shape) for name, t in outputs.items() if bool(torch.isfinite(t).all())}

    def functional(output: dict[str, Tensor]) -> Tensor:
        return torch.stack([(weights[n] * output[n]).flatten(1).sum(1) for n in weights]).sum(0) / scale

    gradients = _implicit(case, x, functional)
    changes = _changes(case)
    if not changes:
        raise NotApplicable("no part of the problem can be changed on its own")
    agreed = False
    for (name, change), dx in zip(changes.items(), _responses(case, x, changes), strict=True):
        ahead = functional(_output(case.map, change.ahead, x + _STEP * dx))
        back = functional(_output(case.map, change.back, x - _STEP * dx))
        measured, told = (ahead - back) / (2 * _STEP), gradients[name] * change.leaf
        if pytrees.is_row(name, change.leaf, case.map.ranks):
            told = told.reshape(case.batch, -1).sum(1)
        else:
            measured, told = measured.sum().reshape(1), told.sum().reshape(1)
        noise = 1e4 * case.eps * functional(outputs).abs().max().clamp(min=1.0) / _STEP
        known = torch.isfinite(measured)
        close = (told - measured).abs() <= 1e-3 * torch.maximum(told.abs(), measured.abs()) + noise
        if int((close & known).sum()) * 2 < int(known.sum()):
            worst = int((told - measured).abs().nan_to_num(0.0).argmax())
            raise Violation(
                f"the gradient with respect to {name} predicts a change of {float(told[worst]):.4e} where the solution "
                f"changes by {float(measured[worst]):.4e}: is implicit_vjp, or the derivative of f or setup, wrong?"
            )
        agreed = agreed or bool(known.any())
    if not agreed:
        raise NotApplicable("I - J is singular at the fixed points found")


def settle(map: FixedPointMap, context: Any, x: Tensor, rounds: int = 30) -> tuple[Tensor, Tensor]:
    """(B, n) fixed points, by plain steps and by Newton steps where they help; (B,) whether they were found."""
    for _ in range(rounds):
        for _ in range(50):
            x = map.forward(map.retract(x, context), context)
        x = map.retract(x, context)
        residual = _gap(map, context, x)
        settled = _norm(residual, dim=1) <= 1e-10 * _norm(x, dim=1)
        if bool(settled.all()):
            break
        newton = gmres(_difference_operator(map, context, x), residual, rtol=1e-6, max_products=200).x
        best, least = x, 0.9 * _norm(residual, dim=1)
        for length in (1.0, 0.5, 0.25):
            trial = map.retract(x + length * newton, context)
            left = _norm(_gap(map, context, trial), dim=1)
            best = torch.where((left < least)[:, None], trial, best)
            least = torch.where(left < least, left, least)
        x = best
    return x, settled


def _gap(map: FixedPointMap, context: Any, x: Tensor) -> Tensor:
    """(B, n) f(retract(x)) - x."""
    return map.forward(map.retract(x, context), context) - x


def _difference_operator(map: FixedPointMap, context: Any, x: Tensor) -> Callable[[Tensor], Tensor]:
    """U -> (I - J) u by central differences."""

    def product(u: Tensor) -> Tensor:
        length = 1e-6 * _norm(x, dim=1, keepdim=True) / _norm(u, dim=1, keepdim=True).clamp(min=1e-300)
        length = torch.where(length > 0, length, torch.full_like(length, 1e-6))
        return (_gap(map, context, x - length * u) - _gap(map, context, x + length * u)) / (2 * length)

    return product


def _output(map: FixedPointMap, context: Any, x: Tensor) -> dict[str, Tensor]:
    """The floating leaves of the output at a point."""
    x = map.retract(x, context)
    fx, aux = map.evaluate(x, context)
    found = pytrees.tensors(map.output(Evaluation(x, fx, fx - x), aux, context))
    return {name: t.detach() for name, t in found.items() if t.is_floating_point()}


def _implicit(case: MapCase, x: Tensor, functional: Callable[[dict[str, Tensor]], Tensor]) -> dict[str, Tensor]:
    """The gradient of the functional at the fixed point x, through the public face."""
    parts = {name: t.clone().requires_grad_() for name, t in case.parts.items()}
    reached = case.everything(x, case.context)["assess (residual)"].max()
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("error", AdjointWarning)
        try:
            solution = solve(
                case.map,
                pytrees.replace(case.problem, parts),
                Plain(),
                start=x,
                tolerance=max(8 * case.eps, 4 * float(reached)),
                max_evaluations=3,
                gradient="implicit",
            )
            value = functional(pytrees.tensors(solution.output)).sum()
            found = torch.autograd.grad(value, list(parts.values()), allow_unused=True)
        except AdjointWarning as warning:
            raise NotApplicable(str(warning)) from warning
    zeros = [torch.zeros_like(t) if g is None else g for t, g in zip(parts.values(), found, strict=True)]
    return dict(zip(parts, zeros, strict=True))


def _changes(case: MapCase) -> dict[str, _Change]:
    """A change of each leaf towards the next instance's data, which keeps the problem's structure.

    It is a multiple of the leaf where that is no change; a leaf that cannot be changed on its own is left out.
    """
    found = {}
    for name, leaf in case.parts.items():
        change = leaf.roll(-1, 0) - leaf if pytrees.is_row(name, leaf, case.map.ranks) else torch.zeros_like(leaf)
        if not bool(change.any()):
            change = 0.5 * leaf
        try:
            ahead, back = (
                case.map.setup(pytrees.replace(case.problem, {name: leaf + step * change})) for step in (_STEP, -_STEP)
            )
        except ValueError:
            continue
        found[name] = _Change(change, ahead, back)
    return found


def _responses(case: MapCase, x: Tensor, changes: dict[str, _Change]) -> list[Tensor]:
    """(B, n) for each change, how the fixed points x move; NaN where I - J is singular. One linear solve for all."""
    pushes = [
        (_gap(case.map, change.ahead, x) - _gap(case.map, change.back, x)) / (2 * _STEP) for change in changes.values()
    ]
    rows = torch.arange(case.batch).repeat(len(pushes))
    operator = _difference_operator(case.map, select_rows(case.context, rows), x[rows])
    solved = gmres(operator, torch.cat(pushes), rtol=1e-7)
    return list(torch.where((solved.residual < 1e-5)[:, None], solved.x, torch.nan).split(case.batch))
