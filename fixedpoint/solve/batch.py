"""A batch at once or by chunks, with its checks: what the front doors (`fixedpoint.solve`, `maps.scs.solve`) share."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fixedpoint.context import Reuse, rows
from fixedpoint.gradients.adjoint import numbered_from
from fixedpoint.gradients.operation import Solve, SolveSpec, blank
from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solution import Evaluation, Status
from fixedpoint.solve import chunks
from fixedpoint.solve.loop import Callback, LoopResult, checked_start, resolve
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_plain, is_readable

_FEW, _CACHE = 64, 2**24
"""Instances that are always solved at once, and bytes that a chunk may take where the size is ours to choose: it is
fastest while it stays in the last cache."""
_LARGE = 2**26
"""Bytes of a batch from which on it is asked how much memory is free."""
_SHARE = 8
"""Instances that a worker gets at least."""
_TEMPORARIES = 12
"""Tensors of the size of x that an evaluation makes."""


class Truncated(NamedTuple):
    """`gradient=Truncated(steps)`: differentiate the last `steps` plain evaluations at the solution only.

    Equals the first `steps` terms of the Neumann series of the implicit gradient; memory does not grow with the
    number of evaluations.
    """

    steps: int


Gradient = Literal["unroll", "implicit"] | Truncated | None


def solve_batch(
    finish: Callable[[slice, Any, LoopResult], dict[str, Any]],
    map: FixedPointMap,
    problem: Any,
    accelerator: Accelerator | str | None,
    *,
    tolerance: float,
    max_evaluations: int,
    start: Any,
    callback: Callback | None,
    gradient: Gradient,
    on_invalid: Literal["raise", "mark"],
    chunk: int | Literal["auto"] | None,
    workers: int,
    reuse: Reuse | None,
) -> tuple[dict[str, Any], int | None]:
    """`solve` for front doors that make more of a result: (what `finish` returns for all rows, the batch size or None).

    Args:
        finish: (rows, their problem, their result) -> pytrees of batch-first tensors by name, among them "status",
            "residual" and "evaluations"; called for every chunk. A single problem is a batch of one here.
    """
    if gradient not in (None, "implicit", "unroll") and not isinstance(gradient, Truncated):
        raise ValueError(f'gradient: expected None, "implicit", "unroll" or Truncated(steps), got {gradient!r}')
    if isinstance(gradient, Truncated) and gradient.steps < 1:
        raise ValueError(f"gradient: Truncated(steps) expects at least 1 step, got {gradient.steps}")
    if on_invalid not in ("raise", "mark"):
        raise ValueError(f'on_invalid: expected "raise" or "mark", got {on_invalid!r}')
    if not isinstance(map, FixedPointMap):
        raise TypeError(f"map: expected a FixedPointMap object, got {map!r}")
    chunks.check(chunk, workers)
    if reuse is not None and not isinstance(reuse, Reuse):
        raise TypeError(f"reuse: expected a fixedpoint.Reuse or None, got {reuse!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function of a Progress or None, got {callback!r}")
    accelerator = resolve(accelerator)
    batch = pytrees.batch_size(problem, map.ranks)
    resume = None
    if start is None or isinstance(start, Tensor):
        start = checked_start(start, map, problem, batch)
    else:
        resume, start = _packed(start, batch)
    if batch is None:
        problem = pytrees.batched(problem, map.ranks)
    parts = pytrees.tensors(problem)
    dtype = pytrees.dtype(problem)
    _check_budget(tolerance, max_evaluations, dtype)
    _check_differentiable(parts, start, gradient)

    spec = SolveSpec(map, accelerator, problem, tolerance, max_evaluations, callback, on_invalid, resume, reuse)
    size, ordinary = batch or 1, _plain(parts)
    few = size <= _FEW or callback is not None if chunk == "auto" else chunk is not None and size <= chunk
    if not ordinary or few:
        chunk = None
    workers = max(1, min(workers, size // _SHARE, _cores())) if ordinary else 1
    if chunk is None and (not ordinary or not _large(parts, map, size)):
        return finish(slice(0, size), problem, _solve(spec, parts, start, gradient)), batch
    problem, invalid = spec.screened(problem)
    parts = pytrees.tensors(problem)
    spec = replace(spec, problem=problem, ready=True, invalid=invalid, reuse=reuse or Reuse())
    chunk = _checked_chunk(chunk, size, workers, _bytes(spec))
    if chunk >= size:
        return finish(slice(0, size), problem, _solve(spec, parts, start, gradient)), batch

    def part(rows: slice) -> dict[str, Any]:
        mine = {name: t[rows] if pytrees.is_row(name, t, map.ranks) else t for name, t in parts.items()}
        invalid = None if spec.invalid is None else spec.invalid[rows]
        local = replace(spec, callback=None, invalid=invalid, first=rows.start, outputs=[], prepared=[])
        with numbered_from(rows.start):
            found = _solve(local, mine, None if start is None else start[rows], gradient)
            return finish(rows, spec.with_parts(mine), found)

    def look() -> dict[str, Any]:
        one = pytrees.take_rows(problem, map.ranks, torch.zeros(1, dtype=torch.int64))
        return finish(slice(0, 1), one, spec.unsolved(one))

    return chunks.solve(part, look, size, chunk, workers, callback), batch


def _plain(parts: dict[str, Tensor]) -> bool:
    """Whether no torch.func transform is at work: these belong to a thread, and hide values."""
    return all(is_plain(t) for t in parts.values())


def _checked_chunk(chunk: int | Literal["auto"] | None, batch: int, workers: int, needed: int) -> int:
    """Instances at once.

    Args:
        chunk: what was asked for.
        batch: B.
        workers: chunks side by side.
        needed: bytes for an instance.

    Raises:
        MemoryError: that many do not fit; says how many do.
    """
    if chunk == "auto":
        chunk = max(_FEW, _CACHE // needed)
    chunks.require_memory(needed, batch if chunk is None else min(batch, chunk * workers), workers)
    return batch if chunk is None else chunk


def _large(parts: dict[str, Tensor], map: FixedPointMap, batch: int) -> bool:
    """Whether a batch could be a matter of memory: a look at the first instance, which costs time, tells then."""
    x = next(t for t in parts.values() if t.is_floating_point()).element_size() * map.signature.size * batch
    rough = 4 * sum(t.nbytes for t in parts.values()) + 2 * _TEMPORARIES * x
    free = chunks.available() if rough > _LARGE else None
    return free is not None and rough > free / 4


def _cores() -> int:
    """That this process may use; one inside a daemonic process, which may have no children."""
    if multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _solve(spec: SolveSpec, parts: dict[str, Tensor], start: Tensor | None, gradient: Gradient) -> LoopResult:
    """A batch at once."""
    if gradient == "unroll":
        return spec.run(parts, start)
    inputs = parts if gradient == "implicit" else {name: t.detach() for name, t in parts.items()}
    result = _assembled(spec, Solve.apply(spec, start, *inputs.values()))
    return _truncated(spec, gradient.steps, parts, result) if isinstance(gradient, Truncated) else result


def _packed(output: Any, batch: int | None) -> tuple[Any, Tensor]:
    """An output to start from as (its structure without rows, its tensors side by side (B, K)).

    Raises:
        TypeError: no tensors in it; ValueError: tensors that are not (B, k), or (k,) for a single problem.
    """
    found = pytrees.tensors(output)
    if not found:
        raise TypeError(f"start: expected a tensor or an output of the map, got {type(output).__name__}")
    for name, t in found.items():
        if t.ndim != (1 if batch is None else 2) or (batch is not None and t.shape[0] != batch):
            raise ValueError(
                f"start: {name}: expected {'(k,)' if batch is None else f'({batch}, k)'}, got {tuple(t.shape)}"
            )
    rows = {name: t[None] if batch is None else t for name, t in found.items()}
    return pytrees.replace(output, {name: t[:0] for name, t in rows.items()}), torch.cat(list(rows.values()), 1)


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


def _assembled(spec: SolveSpec, solved: tuple[Tensor, ...]) -> LoopResult:
    """A `LoopResult` from the flat results of `Solve`."""
    x, residual, status, evaluations, *flat = solved
    structure = spec.outputs[-1]
    output = pytrees.replace(structure, dict(zip(pytrees.tensors(structure), flat, strict=True)))
    return LoopResult(x, output, residual, status, evaluations)


def _truncated(spec: SolveSpec, steps: int, parts: dict[str, Tensor], solved: LoopResult) -> LoopResult:
    """The same numbers, with the gradient of `steps` plain evaluations that start at the solution."""
    problem, x = spec.with_parts(parts), solved.x
    invalid = solved.status == Status.INVALID
    marked = is_readable(invalid) and bool(invalid.any())
    if marked:
        problem = pytrees.replace_rows(problem, spec.map.ranks, invalid)
        x = torch.where(invalid[:, None], x[torch.argmin(invalid.to(torch.int8))], x)
    context = spec.map.setup(problem)
    for _ in range(steps):
        x = spec.map.forward(spec.map.retract(x, context), context)
    x = spec.map.retract(x, context)
    fx, aux = spec.map.evaluate(x, context)
    output = spec.map.output(Evaluation(x, fx, fx - x), aux, context)

    def attach(value: Tensor, path: Tensor) -> Tensor:
        return value + (path - path.detach()) if value.is_floating_point() else value

    result = solved._replace(x=attach(solved.x, x), output=pytrees.transform(attach, solved.output, output))
    return blank(result, invalid) if marked else result


def _bytes(spec: SolveSpec) -> int:
    """Of memory that an instance takes while it is solved, judged by the first two: what is set up here is reused, and
    a map may make less of a single one.
    """
    map = spec.map
    few = pytrees.take_rows(spec.problem, map.ranks, torch.arange(2))
    with torch.no_grad():
        context = map.setup(few) if spec.reuse is None else spec.reuse.setup(map, few)
        accelerator = spec.accelerator.bind(map.signature)
        features = map.featurize(context) if accelerator.uses_features else None
        x, state = accelerator.init(map.initial(context), features, map.metric(context))
    held = pytrees.tensors((rows(context), state)).values()
    return (sum(t.nbytes for t in held) + _TEMPORARIES * x.nbytes) // len(x)
