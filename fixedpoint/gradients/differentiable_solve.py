"""A solve as one differentiable operation: the implicit rule for autograd and torch.func, vmap by folding."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from fixedpoint.gradients.adjoint import through_output
from fixedpoint.gradients.warnings import numbered_from, warn_instances
from fixedpoint.protocol import FixedPointMap
from fixedpoint.solution import Status
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.task import SolveTask
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import where_rows


def solve(task: SolveTask, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
    """`task.run(parts, start)` with the implicit rule as its derivative."""
    x, residual, status, evaluations, *flat = Solve.apply(task, start, *parts.values())
    structure = task.outputs[-1]
    output = pytrees.replace(structure, dict(zip(pytrees.tensors(structure), flat, strict=True)))
    return LoopResult(x, output, residual, status, evaluations)


class Solve(torch.autograd.Function):
    """A solve as one differentiable operation (implicit rule); under vmap the mapped axis joins the batch.

    Takes (task, start, *problem leaves); returns (x, residual, status, evaluations, *leaves of the map's output), of
    which x and the floating outputs are differentiable.
    """

    @staticmethod
    def forward(task: SolveTask, start: Tensor | None, *parts: Tensor) -> tuple[Tensor, ...]:
        result = task.run(dict(zip(pytrees.tensors(task.problem), parts, strict=True)), start)
        # a point that was accepted as it came is copied: autograd must tell inputs from outputs
        result = pytrees.transform(lambda t: t.clone() if any(t is p for p in (start, *parts)) else t, result)
        task.outputs.append(pytrees.transform(lambda t: t.new_empty(0), result.output))
        return result.x, result.residual, result.status, result.evaluations, *pytrees.tensors(result.output).values()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        task, _, *parts = inputs
        x, residual, status, evaluations, *outputs = output
        ctx.task = task
        ctx.mark_non_differentiable(residual, status, evaluations, *(t for t in outputs if not t.is_floating_point()))
        ctx.save_for_backward(x, status, *parts)

    @staticmethod
    def backward(ctx: Any, of_x: Tensor, _r: Any, _s: Any, _e: Any, *of_output: Tensor) -> tuple[Any, ...]:
        x, status, *parts = ctx.saved_tensors
        return None, None, *_Adjoint.apply(ctx.task, len(of_output), x, status, of_x, *of_output, *parts)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError('forward-mode derivatives through gradient="implicit" are not supported; use jacrev or vjp')

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], task: SolveTask, start: Tensor | None, *parts: Tensor) -> Any:
        folded, _ = _fold_parts(info.batch_size, in_dims[2:], task, parts, share=True)
        start = None if start is None else _fold(start, in_dims[1], info.batch_size)
        results = Solve.apply(task, start, *folded)
        return tuple(_unfold(t, info.batch_size) for t in results), tuple(0 for _ in results)


class _Adjoint(torch.autograd.Function):
    """The backward pass of `Solve`: cotangents of x and of the outputs to gradients of the problem's leaves.

    Takes (task, number of outputs, x, status, cotangent of x, *cotangents of the outputs, *problem leaves).
    """

    @staticmethod
    def forward(task: SolveTask, count: int, x: Tensor, status: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        with numbered_from(task.first_row):
            return _Adjoint._gradients(task, count, x, status, *rest)

    @staticmethod
    def _gradients(task: SolveTask, count: int, x: Tensor, status: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        cotangents, parts = rest[: count + 1], rest[count + 1 :]
        invalid = status == Status.INVALID
        cotangents = tuple(where_rows(invalid, torch.zeros_like(t), t) for t in cotangents)
        wanted = torch.stack([(t != 0).reshape(t.shape[0], -1).any(1) for t in cotangents]).any(0)
        unconverged = status != Status.CONVERGED
        warn_instances(~invalid & unconverged & wanted, "the solve did not converge")
        # nor may numbers that nobody asked about spoil the gradients of what the batch shares
        idle = invalid | (unconverged & ~wanted)
        invalid = invalid if bool(idle.all()) else idle
        named = dict(zip(pytrees.tensors(task.problem), parts, strict=True))
        problem = task.with_parts(named)
        if bool(invalid.any()):
            problem = pytrees.replace_rows(problem, task.map.ranks, invalid)
            x = torch.where(invalid[:, None], x[torch.argmin(invalid.to(torch.int8))], x)
            context = task.map.setup(problem)
        else:
            context = task.context_of(named)
        return _problem_gradients(task.map, problem, context, x, cotangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError('second derivatives through gradient="implicit" are not supported; use gradient="unroll"')

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], task: SolveTask, count: int, *rest: Tensor) -> Any:
        rows = 3 + count  # x, status, cotangents of x and of the outputs
        folded, shared = _fold_parts(info.batch_size, in_dims[2 + rows :], task, rest[rows:], share=False)
        batched = [_fold(t, d, info.batch_size) for t, d in zip(rest[:rows], in_dims[2 : 2 + rows], strict=True)]
        gradients = [_unfold(g, info.batch_size) for g in _Adjoint.apply(task, count, *batched, *folded)]
        summed = [g.sum(1) if was_shared else g for g, was_shared in zip(gradients, shared, strict=True)]
        return tuple(summed), tuple(0 for _ in summed)


def _problem_gradients(
    map: FixedPointMap, problem: Any, context: Any, x: Tensor, cotangents: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Gradients of <cotangents, (retract(x*), outputs)>, by name for every leaf of the problem."""
    of_x, of_output = cotangents[0], cotangents[1:]
    direct: dict[str, Tensor] = {}
    if len(inspect.signature(map.implicit_vjp).parameters) > 3:
        found = map.implicit_vjp(x, context, of_x, of_output)
    else:  # a map's own rule that knows nothing of its output
        of_x, direct = through_output(map, problem, x, of_x, of_output)
        found = map.implicit_vjp(x, context, of_x)
    gradients = pytrees.tensors(found)
    # leaves that are not floating have no gradient; zeros of their shape are discarded by autograd
    return tuple(
        gradients[name] + direct.get(name, 0.0)
        if t.is_floating_point()
        else torch.zeros(t.shape, dtype=x.dtype, device=t.device)
        for name, t in pytrees.tensors(problem).items()
    )


def _fold_parts(
    size: int, dims: tuple[int | None, ...], task: SolveTask, parts: tuple[Tensor, ...], *, share: bool
) -> tuple[list[Tensor], list[bool]]:
    """Fold the mapped axis of every problem leaf into its batch axis; also which leaves the batch shared.

    A shared leaf that is mapped gets a row per instance. With `share` an unmapped one stays shared; without (for
    gradients, which must not be summed over the mapped axis) it is repeated too.
    """
    ranks = task.map.ranks
    names = list(pytrees.tensors(task.problem))
    logical = [t if d is None else t.select(d, 0) for t, d in zip(parts, dims, strict=True)]
    shared = [not pytrees.is_row(n, t, ranks) for n, t in zip(names, logical, strict=True)]
    batch = next(t.shape[0] for t, s in zip(logical, shared, strict=True) if not s)
    folded = []
    for part, dim, is_shared in zip(parts, dims, shared, strict=True):
        if is_shared and dim is None and share:
            folded.append(part)
        elif is_shared:
            moved = part.expand(size, *part.shape) if dim is None else part.movedim(dim, 0)
            folded.append(moved.unsqueeze(1).expand(size, batch, *moved.shape[1:]).flatten(0, 1))
        else:
            folded.append(_fold(part, dim, size))
    return folded, shared


def _fold(t: Tensor, dim: int | None, size: int) -> Tensor:
    moved = t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
    return moved.flatten(0, 1)


def _unfold(t: Tensor, size: int) -> Tensor:
    return t.unflatten(0, (size, -1))
