"""A solve as one differentiable operation: the implicit rule for autograd and torch.func, vmap by folding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fixedpoint.context import Reuse
from fixedpoint.gradients.adjoint import numbered_from, warn_instances
from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solution import Evaluation, Status
from fixedpoint.solve.loop import Callback, Iteration, LoopResult, run
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import in_place_version, is_plain, is_readable, where_rows


@dataclass(frozen=True)
class SolveSpec:
    """Everything of a solve but its tensors: what `Solve` carries beside them."""

    map: FixedPointMap
    accelerator: Accelerator
    problem: Any
    """Gives structure and names only: its tensors are replaced by those of each call."""
    tolerance: float
    max_evaluations: int
    callback: Callback | None
    on_invalid: str
    resume: Any = None
    """The structure of the output that the solve starts from (tensors (0, k)); None: it starts from an x."""
    reuse: Reuse | None = None
    invalid: Tensor | None = None
    """(B,) rows that `screened` has replaced, where `ready`."""
    ready: bool = False
    """The data was screened already."""
    first: int = 0
    """Number of the first row in the batch that these are a chunk of."""
    outputs: list[Any] = field(default_factory=list)
    """The structure of the map's output, left here by the forward pass (a Function returns flat tensors)."""
    prepared: list[Any] = field(default_factory=list)
    """What the forward pass left of `setup`, and of which tensors it was: the backward pass needs the same."""

    def setup(self, parts: dict[str, Tensor], problem: Any) -> Any:
        """The context of a problem made of these tensors, as it was in the forward pass or made anew."""
        stamp = _stamp(parts)
        if stamp is not None and self.prepared and self.prepared[0][0] == stamp:
            return self.prepared[0][1]
        return self.map.setup(problem)

    def with_parts(self, parts: dict[str, Tensor]) -> Any:
        """The problem made of these tensors."""
        return pytrees.replace(self.problem, parts)

    def run(self, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        """Screen the data, then run the loop; invalid instances come back as NaN."""
        problem, invalid = self.with_parts(parts), self.invalid
        if not self.ready:
            problem, invalid = self.screened(problem)
        context = self.prepare(problem)
        if invalid is None:
            self.prepared[:] = [(_stamp(parts), context)]
        if self.resume is not None and start is not None:
            pieces = start.split([t.shape[1] for t in pytrees.tensors(self.resume).values()], dim=1)
            output = pytrees.replace(self.resume, dict(zip(pytrees.tensors(self.resume), pieces, strict=True)))
            start = self.map.resume(output, context)
        result = run(
            self.map,
            context,
            self.accelerator,
            start,
            tolerance=self.tolerance,
            max_evaluations=self.max_evaluations,
            callback=self.callback,
            invalid=invalid,
        )
        return result if invalid is None else blank(result, invalid)

    def unsolved(self, problem: Any) -> LoopResult:
        """What `run` returns looks like, from one evaluation; every instance is INVALID."""
        iteration = Iteration(self.map, self.prepare(problem), self.accelerator)
        at, aux = iteration.evaluate()
        residual, status = iteration.assess(at, aux)
        x, output = self.map.original(at, aux, iteration.context), self.map.output(at, aux, iteration.context)
        status = torch.full_like(status, Status.INVALID)
        return LoopResult(x, output, residual, status, torch.zeros_like(status))

    def prepare(self, problem: Any) -> Any:
        """The context of a problem."""
        return self.map.setup(problem) if self.reuse is None else self.reuse.setup(self.map, problem)

    def screened(self, problem: Any) -> tuple[Any, Tensor | None]:
        """The problem with unusable rows replaced by a good one, and which they were (None when all are good).

        Raises:
            ValueError: a fault with on_invalid="raise", or no usable instance at all.
        """
        ranks = self.map.ranks
        parts = pytrees.tensors(problem)
        if not all(is_readable(t) for t in parts.values()):
            return problem, None
        with torch.no_grad():
            size = next(t.shape[0] for name, t in parts.items() if pytrees.is_row(name, t, ranks))
            faults = pytrees.nonfinite(problem, ranks, size)
            bad = torch.stack(list(faults.values())).any(0)
            if not bool(bad.all()):  # the map's own tests may assume finite data
                clean = pytrees.replace_rows(problem, ranks, bad) if bool(bad.any()) else problem
                faults |= {message: rows & ~bad for message, rows in self.map.faults(clean).items()}
            bad = torch.stack(list(faults.values())).any(0)
        if not bool(bad.any()):
            return problem, None
        if self.on_invalid == "raise" or bool(bad.all()):
            found = [
                f"{message} in instance(s) {_listed(rows)}" for message, rows in faults.items() if bool(rows.any())
            ]
            hint = "; no instance can be used" if bool(bad.all()) else ' (on_invalid="mark" solves the others)'
            raise ValueError("; ".join(found) + hint)
        return pytrees.replace_rows(problem, ranks, bad), bad


class Solve(torch.autograd.Function):
    """A solve as one differentiable operation (implicit rule); under vmap the mapped axis joins the batch.

    Takes (spec, start, *problem leaves); returns (x, residual, status, evaluations, *leaves of the map's output), of
    which x and the floating outputs are differentiable.
    """

    @staticmethod
    def forward(spec: SolveSpec, start: Tensor | None, *parts: Tensor) -> tuple[Tensor, ...]:
        result = spec.run(dict(zip(pytrees.tensors(spec.problem), parts, strict=True)), start)
        # a point that was accepted as it came is copied: autograd must tell inputs from outputs
        result = pytrees.transform(lambda t: t.clone() if any(t is p for p in (start, *parts)) else t, result)
        spec.outputs.append(pytrees.transform(lambda t: t.new_empty(0), result.output))
        return result.x, result.residual, result.status, result.evaluations, *pytrees.tensors(result.output).values()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        spec, _, *parts = inputs
        x, residual, status, evaluations, *outputs = output
        ctx.spec = spec
        ctx.mark_non_differentiable(residual, status, evaluations, *(t for t in outputs if not t.is_floating_point()))
        ctx.save_for_backward(x, status, *parts)

    @staticmethod
    def backward(ctx: Any, of_x: Tensor, _r: Any, _s: Any, _e: Any, *of_output: Tensor) -> tuple[Any, ...]:
        x, status, *parts = ctx.saved_tensors
        return None, None, *_Adjoint.apply(ctx.spec, len(of_output), x, status, of_x, *of_output, *parts)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError('forward-mode derivatives through gradient="implicit" are not supported; use jacrev or vjp')

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spec: SolveSpec, start: Tensor | None, *parts: Tensor) -> Any:
        folded, _ = _fold_parts(info.batch_size, in_dims[2:], spec, parts, share=True)
        start = None if start is None else _fold(start, in_dims[1], info.batch_size)
        results = Solve.apply(spec, start, *folded)
        return tuple(_unfold(t, info.batch_size) for t in results), tuple(0 for _ in results)


class _Adjoint(torch.autograd.Function):
    """The backward pass of `Solve`: cotangents of x and of the outputs to gradients of the problem's leaves.

    Takes (spec, number of outputs, x, status, cotangent of x, *cotangents of the outputs, *problem leaves).
    """

    @staticmethod
    def forward(spec: SolveSpec, count: int, x: Tensor, status: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        with numbered_from(spec.first):
            return _Adjoint._gradients(spec, count, x, status, *rest)

    @staticmethod
    def _gradients(spec: SolveSpec, count: int, x: Tensor, status: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        cotangents, parts = rest[: count + 1], rest[count + 1 :]
        invalid = status == Status.INVALID
        cotangents = tuple(where_rows(invalid, torch.zeros_like(t), t) for t in cotangents)
        wanted = torch.stack([(t != 0).reshape(t.shape[0], -1).any(1) for t in cotangents]).any(0)
        unconverged = status != Status.CONVERGED
        warn_instances(~invalid & unconverged & wanted, "the solve did not converge")
        # nor may numbers that nobody asked about spoil the gradients of what the batch shares
        idle = invalid | (unconverged & ~wanted)
        invalid = invalid if bool(idle.all()) else idle
        named = dict(zip(pytrees.tensors(spec.problem), parts, strict=True))
        problem = spec.with_parts(named)
        if bool(invalid.any()):
            problem = pytrees.replace_rows(problem, spec.map.ranks, invalid)
            x = torch.where(invalid[:, None], x[torch.argmin(invalid.to(torch.int8))], x)
            context = spec.map.setup(problem)
        else:
            context = spec.setup(named, problem)
        return _problem_gradients(spec.map, problem, context, x, cotangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError('second derivatives through gradient="implicit" are not supported; use gradient="unroll"')

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spec: SolveSpec, count: int, *rest: Tensor) -> Any:
        rows = 3 + count  # x, status, cotangents of x and of the outputs
        folded, shared = _fold_parts(info.batch_size, in_dims[2 + rows :], spec, rest[rows:], share=False)
        batched = [_fold(t, d, info.batch_size) for t, d in zip(rest[:rows], in_dims[2 : 2 + rows], strict=True)]
        gradients = [_unfold(g, info.batch_size) for g in _Adjoint.apply(spec, count, *batched, *folded)]
        summed = [g.sum(1) if was_shared else g for g, was_shared in zip(gradients, shared, strict=True)]
        return tuple(summed), tuple(0 for _ in summed)


def _listed(rows: Tensor) -> str:
    """The instances in a mask (B,): the first eight, and how many there are."""
    found = torch.nonzero(rows).flatten().tolist()
    return f"{found[:8]}" if len(found) <= 8 else f"{found[:8]} ({len(found)} in all)"


def _stamp(parts: dict[str, Tensor]) -> list[Any] | None:
    """Tells whether tensors are the same, unchanged; None inside a torch.func transform, where nobody can tell."""
    if not all(is_plain(t) for t in parts.values()):
        return None
    return [(name, t.data_ptr(), in_place_version(t), t.shape, t.stride(), t.dtype) for name, t in parts.items()]


def _problem_gradients(
    map: FixedPointMap, problem: Any, context: Any, x: Tensor, cotangents: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Gradients of <cotangents, (retract(x*), outputs)>: directly through the output, then through x*."""
    parts = pytrees.tensors(problem)
    whole = map.output_vjp(x, context, cotangents[0], cotangents[1:])
    if whole is not None:
        return tuple(pytrees.tensors(whole).values())
    floating = {name: t for name, t in parts.items() if t.is_floating_point()}

    def observed(x: Tensor, values: dict[str, Tensor]) -> tuple[Tensor, ...]:
        prepared = map.setup(pytrees.replace(problem, values))
        point = map.retract(x, prepared)
        fx, aux = map.evaluate(point, prepared)
        output = map.output(Evaluation(point, fx, fx - point), aux, prepared)
        return point, *pytrees.tensors(output).values()

    of_x, direct = torch.func.vjp(observed, x, floating)[1](cotangents)
    through_x = pytrees.tensors(map.implicit_vjp(x, context, of_x))
    # leaves that are not floating have no gradient; zeros of their shape are discarded by autograd
    return tuple(
        direct[name] + through_x[name] if name in floating else torch.zeros(t.shape, dtype=x.dtype)
        for name, t in parts.items()
    )


def _fold_parts(
    size: int, dims: tuple[int | None, ...], spec: SolveSpec, parts: tuple[Tensor, ...], *, share: bool
) -> tuple[list[Tensor], list[bool]]:
    """Fold the mapped axis of every problem leaf into its batch axis; also which leaves the batch shared.

    A shared leaf that is mapped gets a row per instance. With `share` an unmapped one stays shared; without (for
    gradients, which must not be summed over the mapped axis) it is repeated too.
    """
    ranks = spec.map.ranks
    names = list(pytrees.tensors(spec.problem))
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


def blank(result: LoopResult, invalid: Tensor) -> LoopResult:
    """The result with NaN for the numbers of the rows in `invalid` (B,)."""

    def nan(t: Tensor) -> Tensor:
        return where_rows(invalid, torch.full_like(t, torch.nan), t) if t.is_floating_point() else t

    return LoopResult(
        x=nan(result.x),
        output=pytrees.transform(nan, result.output),
        residual=nan(result.residual),
        status=result.status,
        evaluations=torch.where(invalid, 0, result.evaluations),
    )
