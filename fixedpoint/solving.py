"""The front door: `solve`, its checks of what the caller gave, and gradients through a solve."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fixedpoint import leaves
from fixedpoint.iterate import Callback, Run, checked_start, resolve
from fixedpoint.masks import concrete
from fixedpoint.operation import Solve, SolveSpec, blank
from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solution import Evaluation, Solution, Status


class Truncated(NamedTuple):
    """`gradient=Truncated(steps)`: differentiate the last `steps` plain evaluations at the solution only.

    Equals the first `steps` terms of the Neumann series of the implicit gradient; memory does not grow with the
    number of evaluations.
    """

    steps: int


Gradient = Literal["unroll", "implicit"] | Truncated | None


def solve(
    map: FixedPointMap,
    problem: Any,
    accelerator: Accelerator | str | None = None,
    *,
    tolerance: float = 1e-6,
    max_evaluations: int = 1000,
    start: Any = None,
    callback: Callback | None = None,
    gradient: Gradient = None,
    on_invalid: Literal["raise", "mark"] = "raise",
) -> Solution:
    """Solve a batch of fixed-point problems (or a single one), each to its own stopping point.

    Args:
        map: the map f.
        problem: a batch of its problems, or one (then the solution has no batch axis; a map that declares no
            `ranks` takes batches only).
        accelerator: an `Accelerator`, a registered name such as "anderson-2", or None for the plain iteration.
        tolerance: an instance converges when the map's residual is at most this; 0 uses the whole budget.
        max_evaluations: most evaluations of the map per instance.
        start: (B, n) first point instead of the map's cold start, in the problem's dtype; or an `output` of an earlier
            solve, for maps that can `resume` from one.
        callback: called with a `Progress` after every check (every evaluation, unless the map checks less often); a
            true return value stops the solve.
        gradient: None for none; "implicit" (implicit function theorem, exact at the solution, memory of one
            evaluation); "unroll" (through every step; ill-conditioned through Anderson acceleration near the
            solution, where its least squares is nearly singular); `Truncated(k)` (through k plain steps at the
            solution).
        on_invalid: what to do with instances whose data cannot be used: "raise" an error that names them, or
            "mark" them INVALID and solve the rest.

    Returns:
        A `Solution`. What one instance does is in its status; it never raises.

    Raises:
        ValueError: bad structure, options or data (the message names the argument).
        TypeError: mixed dtypes, wrong kinds.

    Composes with torch.func (grad, jacrev, vmap). Inside vmap the mapped axis joins the batch, except for
    gradient="unroll", which there runs the whole budget.
    """
    if gradient not in (None, "implicit", "unroll") and not isinstance(gradient, Truncated):
        raise ValueError(f'gradient: expected None, "implicit", "unroll" or Truncated(steps), got {gradient!r}')
    if isinstance(gradient, Truncated) and gradient.steps < 1:
        raise ValueError(f"gradient: Truncated(steps) expects at least 1 step, got {gradient.steps}")
    if on_invalid not in ("raise", "mark"):
        raise ValueError(f'on_invalid: expected "raise" or "mark", got {on_invalid!r}')
    if not isinstance(map, FixedPointMap):
        raise TypeError(f"map: expected a FixedPointMap object, got {map!r}")
    accelerator = resolve(accelerator)
    batch = leaves.check(problem, map.ranks)
    resume = None
    if start is None or isinstance(start, Tensor):
        start = checked_start(start, map, problem, batch)
    else:
        resume, start = _packed(start, batch)
    if batch is None:
        problem = leaves.batched(problem, map.ranks)
    parts = leaves.tensors(problem)
    dtype = leaves.dtype(problem)
    _check_budget(tolerance, max_evaluations, dtype)
    _check_differentiable(parts, start, gradient)

    spec = SolveSpec(map, accelerator, problem, tolerance, max_evaluations, callback, on_invalid, resume)
    if gradient == "unroll":
        result = spec.run(parts, start)
    else:
        inputs = parts if gradient == "implicit" else {name: t.detach() for name, t in parts.items()}
        result = _assembled(spec, Solve.apply(spec, start, *inputs.values()))
        if isinstance(gradient, Truncated):
            result = _truncated(spec, gradient.steps, parts, result)
    solution = Solution(*result)
    return solution if batch is not None else Solution(*leaves.first(result))


def solved(map: FixedPointMap, problem: Any, tolerance: float = 1e-9) -> Tensor:
    """(B, n) the fixed points of a batch to a tight tolerance, as solutions to learn from.

    Raises:
        ArithmeticError: an instance was not solved; the message names it.
    """
    solution = solve(map, problem, "safeguarded", tolerance=tolerance, max_evaluations=100_000)
    if not bool(solution.converged.all()):
        row = int((~solution.converged).to(torch.int8).argmax())
        raise ArithmeticError(f"solutions: instance {row} ended {solution.statuses[row].name} short of {tolerance:g}")
    return solution.x


def _packed(output: Any, batch: int | None) -> tuple[Any, Tensor]:
    """An output to start from as (its structure without rows, its tensors side by side (B, K)).

    Raises:
        TypeError: no tensors in it; ValueError: tensors that are not (B, k), or (k,) for a single problem.
    """
    found = leaves.tensors(output)
    if not found:
        raise TypeError(f"start: expected a tensor or an output of the map, got {type(output).__name__}")
    for name, t in found.items():
        if t.ndim != (1 if batch is None else 2) or (batch is not None and t.shape[0] != batch):
            raise ValueError(
                f"start: {name}: expected {'(k,)' if batch is None else f'({batch}, k)'}, got {tuple(t.shape)}"
            )
    rows = {name: t[None] if batch is None else t for name, t in found.items()}
    return leaves.replace(output, {name: t[:0] for name, t in rows.items()}), torch.cat(list(rows.values()), 1)


def _check_budget(tolerance: float, max_evaluations: int, dtype: torch.dtype) -> None:
    """The door's checks of the stopping rule.

    Raises:
        ValueError: a tolerance that is negative, not finite or below what the dtype can reach; a budget below 1.
    """
    floor = 4 * torch.finfo(dtype).eps
    if isinstance(max_evaluations, bool) or not isinstance(max_evaluations, int):
        raise ValueError(f"max_evaluations: expected a whole number, got {max_evaluations!r}")
    if not isinstance(tolerance, float | int):
        raise ValueError(f"tolerance: expected a number, got {tolerance!r}")
    if not math.isfinite(tolerance) or tolerance < 0 or 0 < tolerance < floor:
        raise ValueError(
            f"tolerance: expected at least {floor:.1e} for {dtype} (or 0 to use the whole budget), got {tolerance!r}"
        )
    if max_evaluations < 1:
        raise ValueError(f"max_evaluations: expected at least 1, got {max_evaluations}")


def _check_differentiable(parts: dict[str, Tensor], start: Tensor | None, gradient: Gradient) -> None:
    """Refuse gradients that would silently be zero.

    Raises:
        ValueError: a leaf requires grad but gradient is None; a gradient with respect to the start of a solve
            whose fixed point does not depend on it.
    """
    if not torch.is_grad_enabled():
        return
    wanted = [name for name, t in parts.items() if t.requires_grad]
    if gradient is None and wanted:
        raise ValueError(
            f'gradient: {", ".join(wanted)} require(s) grad, which gradient=None would drop; choose "implicit", '
            f'"unroll" or Truncated(steps), or solve under torch.no_grad()'
        )
    if gradient != "unroll" and start is not None and start.requires_grad:
        raise ValueError(
            "start: its gradient through a fixed point is exactly zero (the solution does not depend on it); "
            'train a start through gradient="unroll" or fixedpoint.unroll'
        )


def _assembled(spec: SolveSpec, solved: tuple[Tensor, ...]) -> Run:
    """A `Run` from the flat results of `Solve`."""
    x, residual, status, evaluations, *flat = solved
    structure = spec.outputs[-1]
    output = leaves.replace(structure, dict(zip(leaves.tensors(structure), flat, strict=True)))
    return Run(x, output, residual, status, evaluations)


def _truncated(spec: SolveSpec, steps: int, parts: dict[str, Tensor], solved: Run) -> Run:
    """The same numbers, with the gradient of `steps` plain evaluations that start at the solution."""
    problem, x = spec.with_parts(parts), solved.x
    invalid = solved.status == Status.INVALID
    marked = concrete(invalid) and bool(invalid.any())
    if marked:
        problem = leaves.substitute(problem, spec.map.ranks, invalid)
        x = torch.where(invalid[:, None], x[torch.argmin(invalid.to(torch.int8))], x)
    context = spec.map.setup(problem)
    for _ in range(steps):
        x = spec.map.forward(spec.map.retract(x, context), context)
    x = spec.map.retract(x, context)
    fx, aux = spec.map.evaluate(x, context)
    output = spec.map.output(Evaluation(x, fx, fx - x), aux, context)

    def attach(value: Tensor, path: Tensor) -> Tensor:
        return value + (path - path.detach()) if value.is_floating_point() else value

    result = solved._replace(x=attach(solved.x, x), output=leaves.transform(attach, solved.output, output))
    return blank(result, invalid) if marked else result
