"""Iterations in float32 as far as they carry, then in float64 with the instances that need more."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor

from fixedpoint import Accelerator, Progress, Reuse, Status
from fixedpoint.solve.batch import Gradient, solve_batch
from fixedpoint.solve.loop import Callback, LoopResult
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import row_indices
from maps.scs.iteration.map import SCS
from maps.scs.iteration.state import ConicPoint
from maps.scs.problem.program import ConeProgram

CARRIES = 3e-5
"""Relative residual that float32 iterations are asked for at most."""
MARGIN = 0.995
"""Share of the tolerance that they are asked for: what float32 cannot see must not take a float64 solve."""
CERTIFIES = 1e-5
"""Relative violation at which they may claim a certificate, which float64 then has to find."""

Finish = Callable[..., dict[str, Tensor]]


def solve(
    finish: Finish,
    judge: Callable[[ConeProgram, LoopResult, Tensor], dict[str, Tensor]],
    map: SCS,
    program: ConeProgram,
    accelerator: Accelerator | str | None,
    *,
    tolerance: float,
    max_evaluations: int,
    gradient: Gradient,
    reuse: Reuse | None,
    **options: Any,
) -> tuple[dict[str, Any], int | None]:
    """As `fixedpoint.solve.batch.solve_batch`; half of the budget at most is spent in float32.

    What is returned was judged in float64: an instance whose point does not hold there, or that asks for more, goes on
    from it, unless `callback` has said stop (it sees the float32 iterations only). With a gradient all go on, for a
    quarter of the budget at most, since derivatives are taken at what float64 has evaluated.

    Args:
        finish: makes a result of a run, as for `solve_batch`.
        judge: the same for rows that are told whether they began at a warm start.
        map: of the float64 iteration.
    """
    last = copy(map)
    last.first_check = None  # it goes on from points that may need little
    if gradient is not None:
        budget: dict[str, Any] = {"tolerance": tolerance, "max_evaluations": max_evaluations}
        if max_evaluations == 1:
            return solve_batch(finish, map, program, accelerator, gradient=gradient, reuse=reuse, **budget, **options)
        constant, kept = pytrees.transform(Tensor.detach, program), max(1, max_evaluations // 4)
        budget["max_evaluations"] = max_evaluations - kept
        first, batch = solve(finish, judge, map, constant, accelerator, gradient=None, reuse=reuse, **budget, **options)
        start = ConicPoint(first["x"], first["y"], first["s"])
        if batch is None:
            start = pytrees.unbatched(start)
        options |= {"start": start, "on_invalid": "mark", "callback": None}
        budget["max_evaluations"] = kept
        found, batch = solve_batch(
            finish, last, program, accelerator, gradient=gradient, reuse=reuse, **budget, **options
        )
        return {**found, "evaluations": found["evaluations"] + first["evaluations"]}, batch
    watch = _Watch(options.pop("callback"))
    coarse = copy(map)
    coarse.dtype, coarse.eps_infeas = torch.float32, max(map.eps_infeas, CERTIFIES)
    first_budget = max(1, max_evaluations // 2)
    exact = Reuse()

    def go_on(rows: slice, part: ConeProgram, found: LoopResult) -> dict[str, Tensor]:
        x, y, s = (t.to(part.b.dtype) for t in found.output)
        # float32's y and s are in the cones to 1e-7 of their size only
        output = ConicPoint(x, part.cone.project_dual(y), part.cone.project(s))
        first = finish(rows, part, found._replace(output=output), slack=1.0)  # float32's rounding is no excuse
        status = first["status"]
        index = row_indices((status != Status.INVALID) & (status != Status.CONVERGED))
        if index is None or len(index) == 0 or first_budget >= max_evaluations or watch.stopped:
            return first
        second, _ = solve_batch(
            lambda _, some, run: judge(some, run, first["warm_started"][index]),
            last,
            pytrees.take_rows(part, SCS.ranks, index),
            accelerator,
            tolerance=tolerance,
            max_evaluations=max_evaluations - first_budget,
            start=ConicPoint(*(t[index] for t in output)),
            callback=None,
            gradient=None,
            on_invalid="mark",
            chunk=None,
            workers=1,
            reuse=exact,
        )
        second["evaluations"] = second["evaluations"] + first["evaluations"][index]
        return {name: t.index_copy(0, index, second[name].to(t.dtype)) for name, t in first.items()}

    return solve_batch(
        go_on,
        coarse,
        program,
        accelerator,
        tolerance=max(MARGIN * tolerance, CARRIES),
        max_evaluations=first_budget,
        gradient=None,
        reuse=reuse,
        callback=None if watch.callback is None else watch,
        **options,
    )


class _Watch:
    """A callback that remembers that it said stop."""

    def __init__(self, callback: Callback | None) -> None:
        self.callback, self.stopped = callback, False

    def __call__(self, progress: Progress) -> bool:
        assert self.callback is not None
        self.stopped = bool(self.callback(progress))
        return self.stopped
