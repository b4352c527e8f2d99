"""When an instance is done: KKT residuals and certificates in the original data, from the scaled iterates.

The tests are those of SCS 3.3.1 (section 5 of its algorithm page), in infinity norms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint import Assessment, Status
from maps.scs.iteration.equilibration import Data, Scaling
from maps.scs.problem.norms import infinity_norm
from maps.scs.problem.sparse_matrix import Matrix, Pattern, entries, times, transposed_times

NEGATIVE = 1e-9
"""How negative c'x or b'y must be (in the scaled data) before it can certify anything."""


class Unscaling(NamedTuple):
    """What a check needs of the scaling, made once."""

    rows: Tensor | None
    """(B, m) 1 / (D sigma), from the scaled primal condition to the original one; None without a scaling."""
    columns: Tensor | None
    """(B, n) 1 / (E sigma), for the dual condition."""
    b: Tensor
    """(B,) the largest entry of the original b."""
    c: Tensor
    """(B,) and of c."""
    b_z: Tensor
    """(B,) the largest entry of b among the equations."""

    @classmethod
    def of(cls, data: Data, scaling: Scaling, equations: int, *, scaled: bool) -> Unscaling:
        """For scaled data (or, unless `scaled`, for data that was left as it is) with so many equations in front."""
        D, E, sigma = scaling
        rows, columns = (1 / (D * sigma), 1 / (E * sigma)) if scaled else (None, None)
        b = data.b if rows is None else rows * data.b
        return cls(rows, columns, infinity_norm(b), scaled_norm(data.c, columns), infinity_norm(b[:, :equations]))


class KktNorms(NamedTuple):
    """Of an iterate (x, y, s, tau), not divided by tau, in the original units: largest entries and products, (B,)."""

    tau: Tensor
    primal: Tensor
    """Of Ax + s - b tau."""
    Ax: Tensor
    s: Tensor
    b: Tensor
    """Of b tau; c below likewise."""
    dual: Tensor
    """Of Px + A'y + c tau."""
    Px: Tensor
    Aty: Tensor
    c: Tensor
    ray: Tensor
    """Of Ax + s."""
    xPx: Tensor
    cx: Tensor
    by: Tensor


def kkt_norms(data: Data, units: Unscaling, sigma: Tensor, x: Tensor, y: Tensor, s: Tensor, tau: Tensor) -> KktNorms:
    """Of an iterate.

    Args:
        data: scaled.
        units: of the scaling, and its sigma (B, 1).
        x: (B, n) scaled iterate; y and s (B, m); tau (B, 1).
    """
    Ax, Aty = times(data.A, x), transposed_times(data.A, y)
    Px = None if data.P is None else times(data.P, x)
    ray, one = Ax + s, tau[:, 0]
    nothing = torch.zeros_like(one)
    square = sigma[:, 0] ** 2
    return KktNorms(
        tau=one,
        primal=scaled_norm(ray - tau * data.b, units.rows),
        Ax=scaled_norm(Ax, units.rows),
        s=scaled_norm(s, units.rows),
        b=one.abs() * units.b,
        dual=scaled_norm((Aty if Px is None else Px + Aty) + tau * data.c, units.columns),
        Px=nothing if Px is None else scaled_norm(Px, units.columns),
        Aty=scaled_norm(Aty, units.columns),
        c=one.abs() * units.c,
        ray=scaled_norm(ray, units.rows),
        xPx=nothing if Px is None else (x * Px).sum(1) / square,
        cx=(data.c * x).sum(1) / square,
        by=(data.b * y).sum(1) / square,
    )


class KktAssessment(Assessment):
    """An assessment with the norms that it was made from, which an adaptive scale wants too."""

    norms: KktNorms

    @classmethod
    def of(cls, residual: Tensor, status: Tensor, norms: KktNorms) -> KktAssessment:
        """Args: the fields of an `Assessment`, and the norms."""
        found = cls(residual, status)
        found.norms = norms
        return found


def largest_of(*parts: Tensor) -> Tensor:
    """(B,) the largest of several."""
    return torch.stack(parts).amax(0)


def kkt_residual(of: KktNorms, weights: tuple[float, float]) -> Tensor:
    """(B,) the largest of the primal, dual and gap residuals, each over absolute + relative * (size of its terms).

    Args:
        of: the iterate; everything is divided by its tau here.
        weights: (absolute, relative).
    """
    tau = of.tau
    xPx, cx, by = of.xPx / tau / tau, of.cx / tau, of.by / tau
    absolute, relative = weights
    residuals = []
    for violation, scaled_norm in (
        (of.primal / tau, largest_of(of.Ax, of.s, of.b) / tau),
        (of.dual / tau, largest_of(of.Px, of.Aty, of.c) / tau),
        ((xPx + cx + by).abs(), largest_of(xPx.abs(), cx.abs(), by.abs())),
    ):
        allowed = absolute + relative * scaled_norm
        residuals.append(violation / torch.where(violation == 0, torch.ones_like(allowed), allowed))  # not 0 / 0
    return largest_of(*residuals)


class CertificateScale(NamedTuple):
    """How much more a certificate's violation counts where A is small beside c or b, (B,) each."""

    unbounded: Tensor
    infeasible: Tensor


def certificate_scale(A: Matrix, pattern: Pattern, b: Tensor, c: Tensor) -> CertificateScale:
    """max(1, ||c|| / max|A|) and max(1, ||b|| / max|A|); 1 where A vanishes, and there is nothing to compare with.

    Args:
        A: (B, m, n) or (m, n), original; `pattern` its stored places.
        b, c: (B, m), (B, n), original; a single row where they are shared.
    """
    values = entries(A, pattern).detach()
    size = infinity_norm(values if values.ndim == 2 else values[None])
    size = torch.where(size > 0, size, torch.inf)
    return CertificateScale((infinity_norm(c) / size).clamp(min=1), (infinity_norm(b) / size).clamp(min=1))


def certificate(of: KktNorms, sigma: Tensor, weights: CertificateScale, tolerance: float) -> Tensor:
    """(B,) DUAL_INFEASIBLE where x shows that the objective is unbounded, PRIMAL_INFEASIBLE where y shows that no point
    is feasible, else RUNNING.

    Args:
        of: the iterate; y is in K* and s in K by construction.
        sigma: (B, 1) of the scaling.
        weights: of the original data.
        tolerance: of the violation, relative to -c'x or -b'y.
    """
    level = -NEGATIVE / sigma[:, 0] ** 2
    falls, separates = of.cx < level, of.by < level
    fall, separation = torch.where(falls, -of.cx, 1.0), torch.where(separates, -of.by, 1.0)
    ray = torch.maximum(of.ray * weights.unbounded, of.Px) / fall
    plane = of.Aty * weights.infeasible / separation
    status = torch.full_like(of.cx, Status.RUNNING, dtype=torch.int64)
    status = torch.where(separates & (plane < tolerance), Status.PRIMAL_INFEASIBLE, status)
    return torch.where(falls & (ray < tolerance), Status.DUAL_INFEASIBLE, status)


def scaled_norm(t: Tensor, unit: Tensor | None) -> Tensor:
    """(B,) infinity norm of unit * t (B, k)."""
    return infinity_norm(t if unit is None else unit * t)
