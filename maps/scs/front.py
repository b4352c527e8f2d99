"""The conic front door: solve a cone program, or a batch, without knowing about maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.solving import Gradient
from maps.scs.kkt import kkt_terms
from maps.scs.map import SCS
from maps.scs.program import ConeProgram


@dataclass(frozen=True)
class ConicSolution:
    """The result of `maps.scs.solve`. For a single program every B below is absent."""

    x: Tensor
    """(B, n)"""
    y: Tensor
    """(B, m) dual variable, in K*."""
    s: Tensor
    """(B, m) slack, in K."""
    status: Tensor
    """(B,) `fixedpoint.Status` integers."""
    evaluations: Tensor
    """(B,) int64; k evaluations are k + 1 iterations of the scs package."""
    primal_residual: Tensor
    """(B,) ||Ax + s - b||_inf, absolute, in the original data."""
    dual_residual: Tensor
    """(B,) ||Px + A'y + c||_inf."""
    gap: Tensor
    """(B,) |x'Px + c'x + b'y|."""
    objective: Tensor
    """(B,) 1/2 x'Px + c'x."""

    @property
    def statuses(self) -> list[fp.Status]:
        """The statuses as a list of `Status` (one entry for a single program)."""
        return [fp.Status(int(value)) for value in self.status.reshape(-1)]


def solve(
    program: ConeProgram,
    accelerator: fp.Accelerator | str | None = "safeguarded",
    *,
    eps_abs: float = 1e-4,
    eps_rel: float = 1e-4,
    max_evaluations: int = 10_000,
    normalize: bool = True,
    adaptive_scale: bool = False,
    alpha: float = 1.5,
    scale: float = 0.1,
    rho_x: float = 1e-6,
    zero_cone_factor: float = 1000.0,
    tau_factor: float = 10.0,
    start: Tensor | None = None,
    callback: Any = None,
    gradient: Gradient = None,
    on_invalid: Literal["raise", "mark"] = "raise",
) -> ConicSolution:
    """Solve a cone program or a batch of them.

    Args:
        program: the program(s).
        accelerator: an `Accelerator`, a registered name, or None for plain SCS. The default is safeguarded Anderson
            acceleration.
        eps_abs, eps_rel: an instance converges when each KKT residual is at most eps_abs + eps_rel * (size of its
            terms); both 0 uses the whole budget.
        max_evaluations: most evaluations per instance.
        adaptive_scale: must be False: the scale is static.
        normalize, alpha, scale, rho_x, zero_cone_factor, tau_factor: see `SCS`.
        start, callback, gradient, on_invalid: see `fixedpoint.solve`.

    Raises:
        ValueError, TypeError: bad data or options; the message names the argument.
    """
    if adaptive_scale:
        raise ValueError("adaptive_scale: only False is supported; the scale is static (`fixedpoint tune` chooses one)")
    if not isinstance(program, ConeProgram):
        raise TypeError(f"program: expected a ConeProgram, got {type(program).__name__}")
    for name, eps in (("eps_abs", eps_abs), ("eps_rel", eps_rel)):
        if not isinstance(eps, float | int) or not 0 <= eps < float("inf"):
            raise ValueError(f"{name}: expected a number >= 0, got {eps!r}")
    tolerance = max(eps_abs, eps_rel)
    floor = 4 * torch.finfo(program.b.dtype).eps
    if 0 < tolerance < floor:
        raise ValueError(
            f"eps_abs, eps_rel: expected at least {floor:.1e} for {program.b.dtype} (or 0), got {tolerance!r}"
        )
    weights = (eps_abs / tolerance, eps_rel / tolerance) if tolerance > 0 else (1.0, 1.0)
    map = SCS.of(
        program,
        normalize=normalize,
        scale=scale,
        zero_cone_factor=zero_cone_factor,
        alpha=alpha,
        rho_x=rho_x,
        tau_factor=tau_factor,
        error_weights=weights,
    )
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
    x, y, s = solution.output
    single = program.batch is None
    points = (x[None], y[None], s[None]) if single else (x, y, s)
    with torch.no_grad():
        terms = kkt_terms(program, *points)
    Px = 0 if program.P is None else (x[..., None, :] @ program.P)[..., 0, :]
    violation = {name: terms[name][0][0] if single else terms[name][0] for name in ("primal", "dual", "gap")}
    return ConicSolution(
        x=x,
        y=y,
        s=s,
        status=solution.status,
        evaluations=solution.evaluations,
        primal_residual=violation["primal"],
        dual_residual=violation["dual"],
        gap=violation["gap"],
        objective=((0.5 * Px + program.c) * x).sum(-1),
    )
