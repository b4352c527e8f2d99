"""A batch at once or by chunks, with its checks: what the front doors (`fixedpoint.solve`, `maps.scs.solve`) share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fixedpoint.context import rows
from fixedpoint.gradients.choice import Gradient, strategy
from fixedpoint.gradients.warnings import numbered_from
from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solve import chunks, memory
from fixedpoint.solve.execution import CACHE, CHUNK_AT_LEAST, Execution
from fixedpoint.solve.loop import LoopResult, checked_start, resolve
from fixedpoint.solve.prepared import Prepared, prepared_for
from fixedpoint.solve.screening import OnInvalid, screened
from fixedpoint.solve.stopping import Stopping
from fixedpoint.solve.task import SolveTask
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_plain

_LARGE = 2**26
"""Bytes of a batch from which on it is asked how much memory is free."""
_TEMPORARIES = 12
"""Tensors of the size of x that an evaluation makes."""

Finish = Callable[[slice, Any, LoopResult], dict[str, Any]]
"""(rows, their problem, their result) -> pytrees of batch-first tensors by name, among them "status", "residual" and
"evaluations"; called for every chunk. A single problem is a batch of one here."""


def solve_batch(
    finish: Finish,
    map: FixedPointMap,
    problem: Any,
    accelerator: Accelerator | str | None,
    stopping: Stopping,
    execution: Execution,
    *,
    start: Any = None,
    gradient: Gradient = None,
    on_invalid: OnInvalid = "raise",
    prepared: Prepared | None = None,
) -> tuple[dict[str, Any], int | None]:
    """`solve` for front doors that make more of a result: (what `finish` returns for all rows, the batch size or None).

    Raises:
        ValueError, TypeError, MemoryError: see `fixedpoint.solve`.
    """
    if on_invalid not in ("raise", "mark"):
        raise ValueError(f'on_invalid: expected "raise" or "mark", got {on_invalid!r}')
    if not isinstance(map, FixedPointMap):
        raise TypeError(f"map: expected a FixedPointMap object, got {map!r}")
    if prepared is not None and not isinstance(prepared, Prepared):
        raise TypeError(f"prepared: expected what fixedpoint.prepare returns, or None, got {prepared!r}")
    stopping, differentiate = stopping.begun(), strategy(gradient)
    accelerator = resolve(accelerator)
    batch = pytrees.batch_size(problem, map.ranks)
    structure = None
    if start is None or isinstance(start, Tensor):
        start = checked_start(start, map, problem, batch)
    else:
        structure, start = _packed(start, batch)
    if batch is None:
        problem = pytrees.batched(problem, map.ranks)
    if prepared is not None:
        prepared.check(map, problem)
    parts = pytrees.tensors(problem)
    stopping.check_reachable(pytrees.dtype(problem))
    differentiate.check(parts, start)

    task = SolveTask(map, accelerator, problem, stopping, on_invalid, structure, prepared)
    size, ordinary = batch or 1, all(is_plain(t) for t in parts.values())
    whole = not ordinary or execution.chunk is None or execution.at_once(size, stopping.callback is not None)
    workers = execution.processes(size) if ordinary else 1
    if whole and (not ordinary or not _large(parts, map, size)):
        return finish(slice(0, size), problem, differentiate.solve(task, parts, start)), batch
    problem, invalid = screened(map, problem, on_invalid)
    parts = pytrees.tensors(problem)
    with torch.no_grad():
        prepared = prepared or prepared_for(map, problem)
    task = replace(task, problem=problem, is_screened=True, invalid=invalid, prepared=prepared)
    chunk = _checked_chunk(task, size, workers, None if whole else execution.chunk)
    if chunk >= size:
        return finish(slice(0, size), problem, differentiate.solve(task, parts, start)), batch

    def part(rows: slice) -> dict[str, Any]:
        mine = {name: t[rows] if pytrees.is_row(name, t, map.ranks) else t for name, t in parts.items()}
        local = replace(
            task,
            stopping=replace(stopping, callback=None),
            invalid=None if invalid is None else invalid[rows],
            first_row=rows.start,
            outputs=[],
            contexts=[],
        )
        with numbered_from(rows.start):
            found = differentiate.solve(local, mine, None if start is None else start[rows])
            return finish(rows, task.with_parts(mine), found)

    def look() -> dict[str, Any]:
        first = torch.zeros(1, dtype=torch.int64, device=pytrees.device(problem))
        one = pytrees.take_rows(problem, map.ranks, first)
        return finish(slice(0, 1), one, task.unsolved(one))

    return chunks.solve(part, look, size, chunk, workers, stopping), batch


def _checked_chunk(task: SolveTask, batch: int, workers: int, chunk: Any) -> int:
    """Instances at once: as many as were asked for, "auto" as many as stay in a cache, None all.

    Raises:
        MemoryError: that many do not fit; says how many do.
    """
    needed = _bytes(task)
    if chunk == "auto":
        chunk = max(CHUNK_AT_LEAST, CACHE // needed)
    at_once = batch if chunk is None else min(batch, chunk * workers)
    memory.require(needed, at_once, workers, pytrees.device(task.problem))
    return batch if chunk is None else chunk


def _large(parts: dict[str, Tensor], map: FixedPointMap, batch: int) -> bool:
    """Whether a batch could be a matter of memory: a look at the first instance, which costs time, tells then."""
    leaf = next(t for t in parts.values() if t.is_floating_point())
    x = leaf.element_size() * map.signature.size * batch
    rough = 4 * sum(t.nbytes for t in parts.values()) + 2 * _TEMPORARIES * x
    free = memory.available(leaf.device) if rough > _LARGE else None
    return free is not None and rough > free / 4


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


def _bytes(task: SolveTask) -> int:
    """Of memory that an instance takes while it is solved, judged by the first two: a map may make less of a single
    one.
    """
    map = task.map
    few = pytrees.take_rows(task.problem, map.ranks, torch.arange(2, device=pytrees.device(task.problem)))
    with torch.no_grad():
        context = task.setup(few)
        accelerator = task.accelerator.bind(map.signature)
        features = map.featurize(context) if accelerator.uses_features else None
        x, state = accelerator.init(map.initial(context), features, map.metric(context))
    held = pytrees.tensors((rows(context), state)).values()
    return (sum(t.nbytes for t in held) + _TEMPORARIES * x.nbytes) // len(x)
