"""The front door: `solve`."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from fixedpoint.gradients.choice import Gradient
from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solution import Solution
from fixedpoint.solve.batch import solve_batch
from fixedpoint.solve.execution import Execution
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.prepared import Prepared
from fixedpoint.solve.screening import OnInvalid
from fixedpoint.solve.stopping import Callback, Stopping
from fixedpoint.tensors import pytrees


class Stops(TypedDict, total=False):
    """The keywords of `solve` that say when it stops, but for the tolerance: other front doors take them too."""

    max_evaluations: int
    time_limit: float | None
    check_interval: int
    first_check: int | None
    callback: Callback | None


class Executes(TypedDict, total=False):
    """The keywords of `solve` that say how it is executed."""

    chunk: int | Literal["auto"] | None
    workers: int


def solve(
    map: FixedPointMap,
    problem: Any,
    accelerator: Accelerator | str | None = None,
    *,
    tolerance: float = 1e-6,
    max_evaluations: int = 1000,
    time_limit: float | None = None,
    check_interval: int = 1,
    first_check: int | None = None,
    start: Any = None,
    callback: Callback | None = None,
    gradient: Gradient = None,
    on_invalid: OnInvalid = "raise",
    chunk: int | Literal["auto"] | None = "auto",
    workers: int = 1,
    prepared: Prepared | None = None,
) -> Solution:
    """Solve a batch of fixed-point problems (or a single one), each to its own stopping point.

    Args:
        map: the map f.
        problem: a batch of its problems, or one (then the solution has no batch axis; a map that declares no
            `ranks` takes batches only).
        accelerator: an `Accelerator`, a registered name such as "anderson-2", or None for the plain iteration.
        tolerance: an instance converges when the map's residual is at most this; 0 uses the whole budget.
        max_evaluations: most evaluations of the map per instance.
        time_limit: seconds after which no instance is evaluated again; those that are not done are TIME_LIMIT. One
            evaluation, and the setup, are always done.
        check_interval: evaluations from one check of the residual to the next.
        first_check: the evaluation that is checked first, where it is known that none before it suffices; None:
            `check_interval`.
        start: (B, n) first point instead of the map's cold start, in the problem's dtype; or an `output` of an earlier
            solve, for maps that can `resume` from one.
        callback: called with a `Progress` after every check; a true return value stops the solve.
        gradient: None for none; "implicit" (implicit function theorem, exact at the solution, memory of one
            evaluation); "unroll" (through every step; ill-conditioned through Anderson acceleration near the
            solution, where its least squares is nearly singular); `Truncated(k)` (through k plain steps at the
            solution).
        on_invalid: what to do with instances whose data cannot be used: "raise" an error that names them, or
            "mark" them INVALID and solve the rest.
        chunk: most instances that are worked on at once; None for all, "auto" for as many as a cache holds (all, where
            there is a callback). Chunks are solved one after the other, and what the batch shares is set up once. With
            a number, `callback` is called when a chunk is done.
        workers: processes that solve chunks side by side, forked for the call; without derivatives only. Best with one
            thread in each (OMP_NUM_THREADS=1).
        prepared: what `fixedpoint.prepare` made of the leaves that this problem shares: it is not made again.

    Returns:
        A `Solution`. What one instance does is in its status; it never raises.

    Raises:
        ValueError: bad structure, options or data (the message names the argument).
        TypeError: mixed dtypes, wrong kinds.
        MemoryError: the batch does not fit; says which chunk does.

    Composes with torch.func (grad, jacrev, vmap). Inside vmap the mapped axis joins the batch, except for
    gradient="unroll", which there runs the whole budget.
    """
    stopping = Stopping(
        tolerance=tolerance,
        max_evaluations=max_evaluations,
        time_limit=time_limit,
        check_interval=check_interval,
        first_check=first_check,
        callback=callback,
    )
    found, batch = solve_batch(
        _solution,
        map,
        problem,
        accelerator,
        stopping,
        Execution(chunk, workers),
        start=start,
        gradient=gradient,
        on_invalid=on_invalid,
        prepared=prepared,
    )
    return Solution(**(found if batch is not None else pytrees.unbatched(found)))


def _solution(rows: slice, problem: Any, found: LoopResult) -> dict[str, Any]:
    return found._asdict()


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
