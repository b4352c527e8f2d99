"""Iterations in float32 as far as they carry, then in float64 with the instances that need more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fixedpoint import Accelerator, Prepared, Progress, Status
from fixedpoint.gradients.choice import Gradient
from fixedpoint.solve.batch import solve_batch
from fixedpoint.solve.execution import Execution
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.prepared import prepared_for
from fixedpoint.solve.stopping import Callback, Stopping
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
DONE = (Status.INVALID, Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE)
"""What float64 has judged already: solved, or proved to have no solution."""

Finish = Callable[..., dict[str, Tensor]]


def solve(
    finish: Finish,
    judge: Callable[[ConeProgram, LoopResult, Tensor], dict[str, Tensor]],
    map: SCS,
    program: ConeProgram,
    accelerator: Accelerator | str | None,
    stopping: Stopping,
    execution: Execution,
    *,
    gradient: Gradient,
    prepared: Prepared | None,
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
    stopping = stopping.begun()
    budget = stopping.max_evaluations
    if gradient is not None:
        if budget == 1:
            return solve_batch(finish, map, program, accelerator, stopping, execution, gradient=gradient, **options)
        constant, kept = pytrees.transform(Tensor.detach, program), max(1, budget // 4)
        first, batch = solve(
            finish,
            judge,
            map,
            constant,
            accelerator,
            replace(stopping, max_evaluations=budget - kept),
            execution,
            gradient=None,
            prepared=prepared,
            **options,
        )
        start = ConicPoint(first["x"], first["y"], first["s"])
        if batch is None:
            start = pytrees.unbatched(start)
        options |= {"start": start, "on_invalid": "mark"}
        found, batch = solve_batch(
            finish, map, program, accelerator, _going_on(stopping, kept), execution, gradient=gradient, **options
        )
        return {**found, "evaluations": found["evaluations"] + first["evaluations"]}, batch
    watch = _Watch(stopping.callback)
    first_budget = max(1, budget // 2)
    exact: list[Prepared | None] = []  # of the float64 iteration, made once for all chunks of a process

    def go_on(rows: slice, part: ConeProgram, found: LoopResult) -> dict[str, Tensor]:
        x, y, s = (t.to(part.b.dtype) for t in found.output)
        # float32's y and s are in the cones to 1e-7 of their size only
        output = ConicPoint(x, part.cone.project_dual(y), part.cone.project(s))
        first = finish(rows, part, found._replace(output=output), slack=1.0)  # float32's rounding is no excuse
        status = first["status"]
        index = row_indices(torch.stack([status != done for done in DONE]).all(0))
        if index is None or len(index) == 0 or first_budget >= budget or watch.stopped:
            return first
        if not exact:
            exact.append(prepared_for(map, part))
        if not exact:
            exact.append(prepared_for(map, part))
        second, _ = solve_batch(
            lambda _, some, run: judge(some, run, first["warm_started"][index]),
            map,
            pytrees.take_rows(part, SCS.ranks, index),
            accelerator,
            _going_on(stopping, budget - first_budget),
            Execution(chunk=None),
            start=ConicPoint(*(t[index] for t in output)),
            on_invalid="mark",
            prepared=exact[0],
        )
        second["evaluations"] = second["evaluations"] + first["evaluations"][index]
        return {name: t.index_copy(0, index, second[name].to(t.dtype)) for name, t in first.items()}

    rough = replace(
        stopping,
        tolerance=max(MARGIN * stopping.tolerance, CARRIES),
        max_evaluations=first_budget,
        callback=None if stopping.callback is None else watch,
    )
    return solve_batch(go_on, coarse(map), program, accelerator, rough, execution, prepared=prepared, **options)


def coarse(map: SCS) -> SCS:
    """The map of the float32 iteration."""
    settings = replace(map.settings, dtype=torch.float32, eps_infeas=max(map.settings.eps_infeas, CERTIFIES))
    return SCS(map.n, map.cone, features=map.signature.features, **vars(settings))


def _going_on(stopping: Stopping, evaluations: int) -> Stopping:
    """The rule of a solve that starts from points that may need little, with what is left of the budget."""
    return replace(stopping, max_evaluations=evaluations, first_check=None, callback=None)


class _Watch:
    """A callback that remembers that it said stop."""

    def __init__(self, callback: Callback | None) -> None:
        self.callback, self.stopped = callback, False

    def __call__(self, progress: Progress) -> bool:
        assert self.callback is not None
        self.stopped = bool(self.callback(progress))
        return self.stopped
