"""The conic front door: solve a cone program, or a batch, without knowing about maps."""

from __future__ import annotations

import numbers
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.iterate import Callback
from fixedpoint.solving import Gradient
from maps.scs.map import SCS
from maps.scs.program import ConeProgram
from maps.scs.result import ConicSolution, judged
from maps.scs.state import ConicPoint


def solve(
    program: ConeProgram,
    accelerator: fp.Accelerator | str | None = "safeguarded",
    *,
    eps_abs: float = 1e-4,
    eps_rel: float = 1e-4,
    eps_infeas: float | None = None,
    max_evaluations: int = 10_000,
    check_interval: int = 1,
    normalize: bool | str = True,
    adaptive_scale: bool = True,
    alpha: float = 1.5,
    scale: float = 0.1,
    rho_x: float = 1e-6,
    zero_cone_factor: float = 1000.0,
    tau_factor: float = 10.0,
    linear_solver: str = "auto",
    warm_start: Sequence[Any] | None = None,
    callback: Callback | None = None,
    gradient: Gradient = None,
    on_invalid: Literal["raise", "mark"] = "raise",
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
        normalize, adaptive_scale, alpha, scale, rho_x, zero_cone_factor, tau_factor, linear_solver: see `SCS`. Where a
            batch shares A and P, normalize="shared" (or False) with adaptive_scale=False factors them once.
        warm_start: (x, y, s) to start from, of the shapes of the solution's, or an earlier solution. Instances whose
            numbers are not all finite start cold; `ConicSolution.warm_started` says which did not.
        callback: called with a `fixedpoint.Progress` after every check; a true return value stops the solve.
        gradient: see `fixedpoint.solve`; x, y and s are differentiable with respect to P, A, b and c.
        on_invalid: see `fixedpoint.solve`.

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
    map = SCS.of(
        program,
        normalize=normalize,
        scale=scale,
        zero_cone_factor=zero_cone_factor,
        alpha=alpha,
        rho_x=rho_x,
        tau_factor=tau_factor,
        adaptive_scale=adaptive_scale,
        error_weights=(eps_abs / tolerance, eps_rel / tolerance) if tolerance > 0 else (1.0, 1.0),
        eps_infeas=eps_infeas,
        check_interval=check_interval,
        linear_solver=linear_solver,
    )
    start, warm = _start(program, warm_start)
    began = time.perf_counter()
    solution = fp.solve(
        map,
        program,
        accelerator,
        tolerance=tolerance,
        max_evaluations=max_evaluations,
        start=start,
        callback=callback,
        gradient=gradient,
        on_invalid=on_invalid,
    )
    seconds = time.perf_counter() - began
    return judged(program, solution, warm, eps_abs=eps_abs, eps_rel=eps_rel, eps_infeas=eps_infeas, seconds=seconds)


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
