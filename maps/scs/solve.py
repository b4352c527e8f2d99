"""The conic front door: solve a cone program, or a batch, without knowing about maps."""

from __future__ import annotations

import numbers
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.solve.batch import Gradient, solve_batch
from fixedpoint.solve.loop import Callback, LoopResult
from maps.scs import mixed_precision
from maps.scs.certify.solution import ConicSolution, judged
from maps.scs.iteration.map import SCS
from maps.scs.iteration.state import ConicPoint
from maps.scs.problem.program import ConeProgram


def solve(
    program: ConeProgram,
    accelerator: fp.Accelerator | str | None = "safeguarded",
    *,
    eps_abs: float = 1e-4,
    eps_rel: float = 1e-4,
    eps_infeas: float | None = None,
    max_evaluations: int = 10_000,
    check_interval: int = 1,
    first_check: int | None = None,
    normalize: bool | str = True,
    adaptive_scale: bool = True,
    alpha: float = 1.5,
    scale: float = 0.1,
    rho_x: float = 1e-6,
    zero_cone_factor: float = 1000.0,
    tau_factor: float = 10.0,
    weights: Sequence[float] | None = None,
    eliminate: bool = False,
    linear_solver: str = "auto",
    precision: Literal["full", "mixed"] = "full",
    warm_start: Sequence[Any] | None = None,
    callback: Callback | None = None,
    gradient: Gradient = None,
    on_invalid: Literal["raise", "mark"] = "raise",
    chunk: int | Literal["auto"] | None = "auto",
    workers: int = 1,
    reuse: fp.Reuse | None = None,
) -> ConicSolution:
    """Solve a cone program or a batch of them.

    Args:
        program: the program(s). What was given as NumPy or SciPy comes back as NumPy, what was given as torch as torch.
        accelerator: an `Accelerator`, a registered name, or None for plain SCS. The default is safeguarded Anderson
            acceleration; "scs-anderson" is the scs package's own.
        eps_abs, eps_rel: an instance converges when each KKT residual is at most eps_abs + eps_rel * (size of its
            terms); both 0 uses the whole budget.
        eps_infeas: relative violation at which a certificate of infeasibility or unboundedness is accepted; by default
            1e-7, and 1e-5 in float32.
        max_evaluations: most evaluations per instance.
        check_interval: evaluations from one check to the next; the scs package checks every 25.
        first_check: the evaluation that is checked first, where it is known that none before it suffices; by default
            `check_interval`. Not with `adaptive_scale`.
        normalize, adaptive_scale, alpha, scale, rho_x, zero_cone_factor, tau_factor, weights, eliminate, linear_solver:
            see `SCS`. Where a batch shares A and P, normalize="shared" (or False) with adaptive_scale=False factors
            them once.
        precision: "full" iterates in the program's dtype; "mixed" in float32 as far as that carries, which takes half
            the time, and goes on in float64 with the instances that need more. What is returned, and every claim, is
            computed in the program's dtype either way.
        warm_start: (x, y, s) to start from, of the shapes of the solution's, or an earlier solution. Instances whose
            numbers are not all finite start cold; `ConicSolution.warm_started` says which did not.
        callback: called with a `fixedpoint.Progress` after every check; a true return value stops the solve.
        gradient: see `fixedpoint.solve`; x, y and s are differentiable with respect to P, A, b and c.
        on_invalid, chunk, workers, reuse: see `fixedpoint.solve`.

    Raises:
        ValueError, TypeError: bad data or options; the message names the argument.
        FactorizationError: no instance's linear system could be factored.

    To follow the scs package (`adaptive_diag_scale=0`) iteration by iteration: accelerator "scs-anderson",
    check_interval=25; our k evaluations are its k + 1 iterations, of which it reports k.
    """
    if not isinstance(program, ConeProgram):
        raise TypeError(f"program: expected a ConeProgram, got {type(program).__name__}")
    for name, eps in (("eps_abs", eps_abs), ("eps_rel", eps_rel)):
        if isinstance(eps, bool) or not isinstance(eps, numbers.Real) or not 0 <= eps < float("inf"):
            raise ValueError(f"{name}: expected a number >= 0, got {eps!r}")
    tolerance = float(max(eps_abs, eps_rel))
    if eps_infeas is None:
        eps_infeas = 1e-7 if program.b.dtype == torch.float64 else 1e-5
    floor = 4 * torch.finfo(program.b.dtype).eps
    if 0 < tolerance < floor:
        raise ValueError(
            f"eps_abs, eps_rel: expected at least {floor:.1e} for {program.b.dtype} (or 0), got {tolerance!r}"
        )
    if precision not in ("full", "mixed"):
        raise ValueError(f'precision: expected "full" or "mixed", got {precision!r}')
    if precision == "mixed" and program.b.dtype != torch.float64:
        raise ValueError(f'precision: "mixed" is for float64 programs, this one is {program.b.dtype}')
    if precision == "mixed" and (tolerance == 0 or gradient not in (None, "implicit")):
        raise ValueError('precision: "mixed" needs a tolerance above 0, and gradient=None or "implicit"')
    map = SCS.of(
        program,
        normalize=normalize,
        scale=scale,
        zero_cone_factor=zero_cone_factor,
        alpha=alpha,
        rho_x=rho_x,
        tau_factor=tau_factor,
        weights=weights,
        eliminate=eliminate,
        adaptive_scale=adaptive_scale,
        error_weights=(eps_abs / tolerance, eps_rel / tolerance) if tolerance > 0 else (1.0, 1.0),
        eps_infeas=eps_infeas,
        check_interval=check_interval,
        first_check=first_check,
        linear_solver=linear_solver,
    )
    judge = partial(judged, eps_abs=eps_abs, eps_rel=eps_rel, eps_infeas=eps_infeas)
    start, warm = _start(program, warm_start)
    began = time.perf_counter()

    def finish(rows: slice, part: ConeProgram, found: LoopResult, **options: float) -> dict[str, Tensor]:
        return judge(part, found, warm[rows] if program.batch is not None else warm[None], **options)

    options: dict[str, Any] = {"callback": callback, "on_invalid": on_invalid, "chunk": chunk, "workers": workers}
    budget: dict[str, Any] = {"tolerance": tolerance, "max_evaluations": max_evaluations}
    if precision == "mixed":
        found, batch = mixed_precision.solve(
            finish, judge, map, program, accelerator, start=start, gradient=gradient, reuse=reuse, **budget, **options
        )
    else:
        found, batch = solve_batch(
            finish, map, program, accelerator, start=start, gradient=gradient, reuse=reuse, **budget, **options
        )
    del found["residual"]  # the map's own, for the callback
    arrays: dict[str, Any] = {name: t[0] if batch is None else t for name, t in found.items()}
    if program.numpy:
        arrays = {name: np.asarray(t.numpy()) for name, t in arrays.items()}
    return ConicSolution(**arrays, seconds=time.perf_counter() - began)


def _start(program: ConeProgram, given: Any) -> tuple[ConicPoint | None, Tensor]:
    """(the point to start from, (B,) which instances have one).

    Raises:
        TypeError: not three parts; ValueError: wrong shapes.
    """
    lead = () if program.batch is None else (program.batch,)
    if given is None:
        return None, torch.zeros(lead, dtype=torch.bool)
    parts = (given.x, given.y, given.s) if isinstance(given, ConicSolution) else given
    if not isinstance(parts, Sequence) or len(parts) != 3:
        raise TypeError(f"warm_start: expected (x, y, s) or a ConicSolution, got {type(given).__name__}")
    point = []
    for name, part, size in zip("xys", parts, (program.n, program.m, program.m), strict=True):
        try:
            value = torch.as_tensor(part, dtype=program.b.dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"warm_start: {name}: expected numbers ({error})") from None
        if tuple(value.shape) != (*lead, size):
            raise ValueError(f"warm_start: {name}: expected shape {(*lead, size)}, got {tuple(value.shape)}")
        point.append(value)
    known = torch.stack([torch.isfinite(part).all(-1) for part in point]).all(0)
    return ConicPoint(*point), known
