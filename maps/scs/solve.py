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
from fixedpoint.gradients.choice import Gradient
from fixedpoint.solve.batch import solve_batch
from fixedpoint.solve.execution import Execution
from fixedpoint.solve.front import Executes, Stops
from fixedpoint.solve.loop import LoopResult
from fixedpoint.solve.screening import OnInvalid
from fixedpoint.solve.stopping import Stopping
from maps.scs import mixed_precision
from maps.scs.certify.solution import ConicSolution, judged
from maps.scs.iteration import settings
from maps.scs.iteration.map import SCS
from maps.scs.iteration.state import ConicPoint
from maps.scs.problem.program import ConeProgram

Precision = Literal["full", "mixed"]

STOPS, EXECUTES = frozenset(Stops.__annotations__), frozenset(Executes.__annotations__)
SETTINGS = settings.NAMES - {"error_weights", "dtype"}
"""Settings of the map that are not said by other keywords."""
_OWN = {"eps_abs", "eps_rel", "precision", "warm_start", "gradient", "on_invalid", "prepared"}
KEYWORDS = STOPS | EXECUTES | SETTINGS | _OWN
"""All keywords of `solve`."""


def solve(
    program: ConeProgram,
    accelerator: fp.Accelerator | str | None = "safeguarded",
    *,
    eps_abs: float = 1e-4,
    eps_rel: float = 1e-4,
    precision: Precision = "full",
    warm_start: Sequence[Any] | None = None,
    gradient: Gradient = None,
    on_invalid: OnInvalid = "raise",
    prepared: fp.Prepared | None = None,
    **options: Any,
) -> ConicSolution:
    """Solve a cone program or a batch of them.

    Args:
        program: the program(s). What was given as NumPy or SciPy comes back as NumPy, what was given as torch as torch.
        accelerator: an `Accelerator`, a registered name, or None for plain SCS. The default is safeguarded Anderson
            acceleration; "scs-anderson" is the scs package's own.
        eps_abs, eps_rel: an instance converges when each KKT residual is at most eps_abs + eps_rel * (size of its
            terms); both 0 uses the whole budget.
        precision: "full" iterates in the program's dtype; "mixed" in float32 as far as that carries, which takes half
            the time, and goes on in float64 with the instances that need more. What is returned, and every claim, is
            computed in the program's dtype either way.
        warm_start: (x, y, s) to start from, of the shapes of the solution's, or an earlier solution. Instances whose
            numbers are not all finite start cold; `ConicSolution.warm_started` says which did not.
        gradient: see `fixedpoint.solve`; x, y and s are differentiable with respect to P, A, b and c.
        on_invalid: see `fixedpoint.solve`.
        prepared: what `prepare` made of the A and P that this program shares: they are not scaled and factored again.
        **options: when it stops and how it is executed, as for `fixedpoint.solve`: max_evaluations (10,000 here),
            time_limit, check_interval (the scs package checks every 25), first_check, callback, chunk, workers; and the
            fields of `SCSSettings`: normalize, scale, alpha, rho_x, zero_cone_factor, tau_factor, weights, eliminate,
            linear_solver, adaptive_scale (here on), eps_infeas (here 1e-7, and 1e-5 in float32).
            Where a batch shares A and P, normalize="shared" (or False) with adaptive_scale=False factors them once.

    Raises:
        ValueError, TypeError: bad data or options; the message names the argument.
        FactorizationError: no instance's linear system could be factored.

    To follow the scs package (`adaptive_diag_scale=0`) iteration by iteration: accelerator "scs-anderson",
    check_interval=25; our k evaluations are its k + 1 iterations, of which it reports k.
    """
    if not isinstance(program, ConeProgram):
        raise TypeError(f"program: expected a ConeProgram, got {type(program).__name__}")
    if unknown := sorted(options.keys() - STOPS - EXECUTES - SETTINGS):
        raise TypeError(f"solve: unknown {', '.join(unknown)}; known are {', '.join(sorted(KEYWORDS))}")
    for name, eps in (("eps_abs", eps_abs), ("eps_rel", eps_rel)):
        if isinstance(eps, bool) or not isinstance(eps, numbers.Real) or not 0 <= eps < float("inf"):
            raise ValueError(f"{name}: expected a number >= 0, got {eps!r}")
    tolerance = float(max(eps_abs, eps_rel))
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
    map = _map(program, eps_abs, eps_rel, options)
    stopping = Stopping(tolerance, **{"max_evaluations": 10_000, **{k: options[k] for k in options.keys() & STOPS}})
    execution = Execution(**{k: options[k] for k in options.keys() & EXECUTES})
    judge = partial(judged, eps_abs=eps_abs, eps_rel=eps_rel, eps_infeas=map.settings.eps_infeas)
    start, warm = _start(program, warm_start)
    began = time.perf_counter()

    def finish(rows: slice, part: ConeProgram, found: LoopResult, **options: float) -> dict[str, Tensor]:
        return judge(part, found, warm[rows] if program.batch is not None else warm[None], **options)

    how: dict[str, Any] = {"gradient": gradient, "on_invalid": on_invalid, "prepared": prepared, "start": start}
    if precision == "mixed":
        found, batch = mixed_precision.solve(finish, judge, map, program, accelerator, stopping, execution, **how)
    else:
        found, batch = solve_batch(finish, map, program, accelerator, stopping, execution, **how)
    del found["residual"]  # the map's own, for the callback
    arrays: dict[str, Any] = {name: t[0] if batch is None else t for name, t in found.items()}
    if program.numpy:
        arrays = {name: np.asarray(t.numpy()) for name, t in arrays.items()}
    return ConicSolution(**arrays, seconds=time.perf_counter() - began)


def prepare(program: ConeProgram, *, precision: Precision = "full", **options: Any) -> fp.Prepared:
    """Scale and factor the A and P that a batch shares, for `solve(..., prepared=)` with the same settings.

    Args:
        program: a batch; its b and c do not matter.
        precision: as for `solve`.
        **options: fields of `SCSSettings`, as for `solve`.

    Raises:
        TypeError, ValueError: as `solve`; A or P that is not shared, settings that scale or factor each instance by
            itself (normalize=True, adaptive_scale=True).
        FactorizationError: no factorization passed its check.
    """
    if unknown := sorted(options.keys() - SETTINGS):
        raise TypeError(f"prepare: unknown {', '.join(unknown)}; known are {', '.join(sorted(SETTINGS))}")
    map = _map(program, 1.0, 1.0, options)
    return fp.prepare(mixed_precision.coarse(map) if precision == "mixed" else map, program)


def _map(program: ConeProgram, eps_abs: float, eps_rel: float, options: dict[str, Any]) -> SCS:
    """The map of `solve`, from its keywords."""
    tolerance = max(eps_abs, eps_rel)
    chosen: dict[str, Any] = {
        "adaptive_scale": True,
        "error_weights": (eps_abs / tolerance, eps_rel / tolerance) if tolerance > 0 else (1.0, 1.0),
        **{name: options[name] for name in options.keys() & SETTINGS},
    }
    if chosen.get("eps_infeas") is None:
        chosen["eps_infeas"] = 1e-7 if program.b.dtype == torch.float64 else 1e-5
    return SCS.of(program, **chosen)


def _start(program: ConeProgram, given: Any) -> tuple[ConicPoint | None, Tensor]:
    """(the point to start from, (B,) which instances have one).

    Raises:
        TypeError: not three parts; ValueError: wrong shapes.
    """
    lead = () if program.batch is None else (program.batch,)
    if given is None:
        return None, torch.zeros(lead, dtype=torch.bool, device=program.b.device)
    parts = (given.x, given.y, given.s) if isinstance(given, ConicSolution) else given
    if not isinstance(parts, Sequence) or len(parts) != 3:
        raise TypeError(f"warm_start: expected (x, y, s) or a ConicSolution, got {type(given).__name__}")
    point = []
    for name, part, size in zip("xys", parts, (program.n, program.m, program.m), strict=True):
        try:
            value = torch.as_tensor(part, dtype=program.b.dtype, device=program.b.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"warm_start: {name}: expected numbers ({error})") from None
        if tuple(value.shape) != (*lead, size):
            raise ValueError(f"warm_start: {name}: expected shape {(*lead, size)}, got {tuple(value.shape)}")
        point.append(value)
    known = torch.stack([torch.isfinite(part).all(-1) for part in point]).all(0)
    return ConicPoint(*point), known
