"""The only loop: every map with every accelerator, of fixed length (`unroll`) or with stopping (`run`)."""

from __future__ import annotations

import itertools
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from fixedpoint.context import select_rows
from fixedpoint.plugins.registry import accelerators
from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solution import Adaptation, Assessment, Check, Evaluation, Progress, Status, Trajectory
from fixedpoint.solve.stopping import Stopping
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_readable, row_indices, where_rows

_COMPACT_FROM, _WORTH = 8, 0.8
"""Smaller batches, and larger shares of what is still in flight, are not worth re-indexing."""
_FEW = 0.5
"""Share of a batch up to which outputs are made for those rows alone that have just finished."""


class Iteration:
    """A batch in flight: `evaluate`, then `advance`, again and again: one map evaluation per round."""

    def __init__(self, map: FixedPointMap, context: Any, accelerator: Accelerator, start: Tensor | None = None) -> None:
        accelerator = accelerator.bind(map.signature)
        x0 = map.initial(context) if start is None else start
        features = map.featurize(context) if accelerator.uses_features else None
        self.map, self.context, self.accelerator = map, context, accelerator
        self.x, self.state = accelerator.init(x0, features, map.metric(context))

    def evaluate(self) -> tuple[Evaluation, Any]:
        """Evaluate the map at the current point: (evaluation, by-products)."""
        x = self.map.retract(self.x, self.context)
        fx, aux = self.map.evaluate(x, self.context)
        return Evaluation(x, fx, fx - x), aux

    def assess(self, at: Evaluation, aux: Any) -> Assessment:
        """The map's judgement of an evaluation."""
        return self.map.assess(at, aux, self.context)

    def advance(self, at: Evaluation, done: Tensor | None = None, adapted: Adaptation | None = None) -> None:
        """Let the accelerator choose the next point; rows in `done` (B,) keep theirs, their states no longer matter.
        None where there are none, so that values need not be read.

        Rows whose coordinates the map has changed go on from f(x), and the accelerator begins anew there.
        """
        x, state = self.accelerator.step(at, self.state)
        if adapted is not None:
            self.context = adapted.context
            if adapted.changed is not None:
                fresh = self.accelerator.restart(adapted.fx, self.map.metric(self.context))
                x = where_rows(adapted.changed, adapted.fx, x)
                state = pytrees.transform(partial(where_rows, adapted.changed), fresh, state)
        self.x = x if done is None else where_rows(done, at.x, x)
        self.state = state

    def detach(self) -> None:
        """Forget how the current point and state came about: the end of a window of truncated backpropagation."""
        self.x = self.x.detach()
        self.state = pytrees.transform(lambda t: t.detach(), self.state)

    def compact(self, keep: Tensor) -> None:
        """Keep only the rows in `keep` (int64)."""
        self.x = self.x[keep]
        self.state = pytrees.transform(lambda t: t[keep], self.state)
        self.context = select_rows(self.context, keep)


def resolve(accelerator: Accelerator | str | None) -> Accelerator:
    """An accelerator from an instance, a registered name or None (plain iteration).

    Raises:
        TypeError: something else was given.
    """
    if accelerator is None:
        accelerator = "picard"
    if isinstance(accelerator, str):
        accelerator = accelerators.create(accelerator)
    if not isinstance(accelerator, Accelerator):
        raise TypeError(f"accelerator: expected an Accelerator, a registered name or None, got {accelerator!r}")
    return accelerator


def unroll(
    map: FixedPointMap,
    problem: Any,
    accelerator: Accelerator | str | None = None,
    steps: int = 10,
    *,
    start: Tensor | None = None,
) -> Trajectory:
    """Exactly `steps` evaluations from the start, every one recorded, all of it differentiable.

    Args:
        map: the map.
        problem: a batch (or a single problem, taken as a batch of one) of the map's problems.
        accelerator: an instance, a registered name, or None for the plain iteration.
        steps: T >= 1.
        start: (B, n) first point instead of the map's cold start.

    Raises:
        ValueError: bad structure, or steps below 1.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    batch = pytrees.batch_size(problem, map.ranks)
    if batch is None:
        problem = pytrees.batched(problem, map.ranks)
    iteration = Iteration(map, map.setup(problem), resolve(accelerator), checked_start(start, map, problem, batch))
    return roll(iteration, steps)


def roll(iteration: Iteration, steps: int, *, proceed: bool = False, checkpoint: bool = False) -> Trajectory:
    """The next `steps` evaluations of a batch in flight, every one recorded, all of it differentiable.

    Args:
        iteration: left at the last point evaluated, or one beyond it.
        steps: at least 1.
        proceed: advance beyond the last evaluation too, so that another `roll` goes on from there.
        checkpoint: keep no intermediate results of a round for the backward pass, which computes them again
            (`torch.utils.checkpoint`): memory grows with x and the state only.
    """

    def round_(x: Tensor, state: Any, *, advance: bool) -> tuple[Any, Tensor, Any]:
        here = copy(iteration)  # a round that the backward pass computes again must not move the iteration back
        here.x, here.state = x, state
        at, aux = here.evaluate()
        assessment = here.assess(at, aux)
        if advance:
            here.advance(at)
        record = (at.x, at.fx, assessment.residual, here.map.output(at, aux, here.context))
        return record, here.x, here.state

    rounds = []
    for step in range(steps):
        run = partial(round_, advance=proceed or step + 1 < steps)
        if checkpoint:
            found = torch_checkpoint(run, iteration.x, iteration.state, use_reentrant=False)
        else:
            found = run(iteration.x, iteration.state)
        record, iteration.x, iteration.state = found
        rounds.append(record)
    return Trajectory(*pytrees.transform(lambda *ts: torch.stack(ts), rounds[0], *rounds[1:]))


class LoopResult(NamedTuple):
    """What the stopping loop returns for a batch; the fields are those of `Solution`."""

    x: Tensor
    output: Any
    residual: Tensor
    status: Tensor
    evaluations: Tensor


def run(
    map: FixedPointMap,
    context: Any,
    accelerator: Accelerator,
    start: Tensor | None,
    stopping: Stopping,
    *,
    invalid: Tensor | None = None,
) -> LoopResult:
    """The stopping loop: instances freeze as they finish and leave the batch when a fifth of it is done.

    Where `stopping` says so, and at the last evaluation, instances are assessed and may finish. Where values cannot be
    read (inside torch.func.vmap) it runs the whole budget with the same masks.
    """
    iteration = Iteration(map, context, accelerator, start)
    rows = torch.arange(iteration.x.shape[0], device=iteration.x.device)
    result: LoopResult | None = None
    done = torch.zeros_like(rows, dtype=torch.bool) if invalid is None else invalid
    claimed = torch.full_like(rows, Status.RUNNING)
    callback, checked = stopping.callback, 0
    waiting = invalid  # `done`, None where it is known to be empty
    alive = None if invalid is not None else len(rows)  # how many are not done, where that is known
    for count in itertools.count(1):
        at, aux = iteration.evaluate()
        is_check, last = stopping.due(count)
        if not is_check:
            iteration.advance(at, waiting)
            continue
        assessment = iteration.assess(at, aux)
        status = stopping.verdict(at, assessment, claimed, map.metric(iteration.context))
        claimed = assessment.status
        if last:
            status = torch.where(status == Status.RUNNING, stopping.exhausted, status)
        finished = done | (status != Status.RUNNING)
        live = row_indices(~finished)
        settled = live is not None and live.numel() == alive  # nobody finished
        if last or callback is not None or not settled:
            fresh = ~done if last or callback is not None else finished & ~done
            if result is None and invalid is not None:
                status, fresh = torch.where(invalid, Status.INVALID, status), fresh | invalid
            now = assessment.residual, status, torch.full_like(status, count)
            result = _record(result, iteration, at, aux, now, rows, fresh)
        if callback is not None:
            assert result is not None
            residual = result.residual.detach().clone()
            residual = torch.where(result.status == Status.INVALID, torch.nan, residual)
            progress = Progress(count, residual, result.status.clone())
            if callback(progress):
                early = result.status == Status.RUNNING
                return result._replace(status=torch.where(early, Status.MAX_EVALUATIONS, result.status))
        if last or (live is not None and live.numel() == 0):
            break
        check, checked = Check(assessment, count - checked), count
        done, alive = finished, None if live is None else live.numel()
        waiting = None if alive == len(rows) else done
        iteration.advance(at, waiting, map.adapt(at, aux, iteration.context, check))
        if live is not None and finished.shape[0] >= _COMPACT_FROM and live.numel() <= _WORTH * finished.shape[0]:
            iteration.compact(live)
            rows, done, claimed = rows[live], done[live], claimed[live]
            waiting = None  # those that are left are not done
    assert result is not None
    return result


def _record(
    result: LoopResult | None,
    iteration: Iteration,
    at: Evaluation,
    aux: Any,
    judged: tuple[Tensor, Tensor, Tensor],
    rows: Tensor,
    fresh: Tensor,
) -> LoopResult | None:
    """Write the current batch's `fresh` rows (B,) into the full-size result, which begins with the first of them.

    Args:
        judged: the last three fields of a `LoopResult`.
    """
    map, context = iteration.map, iteration.context
    index = row_indices(fresh)
    if index is not None and len(index) == 0:
        return result
    place = None if index is None else rows[index]
    count = len(rows)
    if index is not None and len(index) <= _FEW * count:  # an output may cost more than an evaluation
        at, aux, judged = pytrees.transform(lambda t: t[index], (at, aux, judged))
        context, index = select_rows(context, index), None
    now = LoopResult(map.original(at, aux, context), map.output(at, aux, context), *judged)
    if place is None:  # inside vmap nothing ever leaves the batch
        return now if result is None else pytrees.transform(lambda old, new: where_rows(fresh, new, old), result, now)
    if result is None:
        if index is not None:
            return now
        result = pytrees.transform(lambda t: t.new_zeros(count, *t.shape[1:]), now)
    return pytrees.transform(
        lambda old, new: old.index_copy(0, place, new if index is None else new[index]), result, now
    )


def checked_start(start: Tensor | None, map: FixedPointMap, problem: Any, batch: int | None) -> Tensor | None:
    """The start that the caller gave, batched.

    Raises:
        ValueError: wrong shape or non-finite numbers; TypeError: a dtype other than the problem's.
    """
    if start is None:
        return None
    if not isinstance(start, Tensor):
        raise TypeError(f"start: expected a tensor, got {type(start).__name__}")
    size = map.signature.size
    expected = (size,) if batch is None else (batch, size)
    if tuple(start.shape) != expected:
        raise ValueError(f"start: expected shape {expected}, got {tuple(start.shape)}")
    dtype = pytrees.dtype(problem)
    if start.dtype != dtype:
        raise TypeError(f"start: expected the problem's dtype {dtype}, got {start.dtype}")
    if is_readable(start) and not bool(torch.isfinite(start).all()):
        raise ValueError("start: expected finite numbers, got NaN or infinity")
    return start.unsqueeze(0) if batch is None else start
