"""When an instance is done: KKT residuals and certificates in the original data, from the scaled iterates.

The tests are those of SCS 3.3.1 (section 5 of its algorithm page), in infinity norms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint import Status
from maps.scs.matrix import Matrix, Pattern, entries, times, transposed_times
from maps.scs.scaling import Data, Scaling

NEGATIVE = 1e-9
"""How negative c'x or b'y must be (in the scaled data) before it can certify anything."""


class Terms(NamedTuple):
    """Sizes (B,) of one optimality condition: its violation and its terms."""

    violation: Tensor
    parts: tuple[Tensor, ...]

    @property
    def size(self) -> Tensor:
        """Of the largest term."""
        return torch.stack(self.parts).amax(0)


class Point(NamedTuple):
    """An iterate (x, y, s, tau), not divided by tau, with its products, in the original units."""

    x: Tensor
    y: Tensor
    s: Tensor
    tau: Tensor
    """(B, 1)"""
    b: Tensor
    c: Tensor
    Ax: Tensor
    Aty: Tensor
    Px: Tensor
    xPx: Tensor
    """(B, 1); so are c'x and b'y."""
    cx: Tensor
    by: Tensor

    @property
    def primal(self) -> Terms:
        """Ax + s = b tau."""
        parts = self.Ax, self.s, self.tau * self.b
        return Terms(largest(self.Ax + self.s - self.tau * self.b), tuple(map(largest, parts)))

    @property
    def dual(self) -> Terms:
        """Px + A'y + c tau = 0."""
        parts = self.Px, self.Aty, self.tau * self.c
        return Terms(largest(self.Px + self.Aty + self.tau * self.c), tuple(map(largest, parts)))


def unscaled(data: Data, scaling: Scaling, x: Tensor, y: Tensor, s: Tensor, tau: Tensor) -> Point:
    """The point in the original units.

    Args:
        data: scaled, by `scaling`.
        x: (B, n) scaled iterate; y and s (B, m); tau (B, 1).
    """
    D, E, sigma = scaling
    rows, columns = 1 / (D * sigma), 1 / (E * sigma)
    Px = torch.zeros_like(x) if data.P is None else times(data.P, x)
    inner = ((a * b).sum(1, keepdim=True) / sigma**2 for a, b in ((x, Px), (data.c, x), (data.b, y)))
    return Point(
        x=E * x / sigma,
        y=D * y / sigma,
        s=rows * s,
        tau=tau,
        b=rows * data.b,
        c=columns * data.c,
        Ax=rows * times(data.A, x),
        Aty=columns * transposed_times(data.A, y),
        Px=columns * Px,
        **dict(zip(("xPx", "cx", "by"), inner, strict=True)),
    )


def kkt_residual(point: Point, weights: tuple[float, float]) -> Tensor:
    """(B,) the largest of the primal, dual and gap residuals, each over absolute + relative * (size of its terms).

    Args:
        point: the iterate; everything is divided by its tau here.
        weights: (absolute, relative).
    """
    tau = point.tau
    p = point._replace(**{name: getattr(point, name) / tau for name in ("x", "y", "s", "Ax", "Aty", "Px", "cx", "by")})
    p = p._replace(tau=torch.ones_like(tau), xPx=point.xPx / tau / tau)
    gap = Terms(largest(p.xPx + p.cx + p.by), tuple(map(largest, (p.xPx, p.cx, p.by))))
    absolute, relative = weights
    residuals = []
    for violation, size in ((terms.violation, terms.size) for terms in (p.primal, p.dual, gap)):
        allowed = absolute + relative * size
        residuals.append(violation / torch.where(violation == 0, torch.ones_like(allowed), allowed))  # not 0 / 0
    return torch.stack(residuals).amax(0)


class Weights(NamedTuple):
    """How much more a certificate's violation counts where A is small beside c or b, (B,) each."""

    unbounded: Tensor
    infeasible: Tensor


def certificate_weights(A: Matrix, pattern: Pattern, b: Tensor, c: Tensor) -> Weights:
    """max(1, ||c|| / max|A|) and max(1, ||b|| / max|A|); 1 where A vanishes, and there is nothing to compare with.

    Args:
        A: (B, m, n) or (m, n), original; `pattern` its stored places.
        b, c: (B, m), (B, n), original; a single row where they are shared.
    """
    values = entries(A, pattern).detach().abs()
    size = largest(values if values.ndim == 2 else values[None])
    size = torch.where(size > 0, size, torch.inf)
    return Weights((largest(c) / size).clamp(min=1), (largest(b) / size).clamp(min=1))


def certificate(point: Point, sigma: Tensor, weights: Weights, tolerance: float) -> Tensor:
    """(B,) DUAL_INFEASIBLE where x shows that the objective is unbounded, PRIMAL_INFEASIBLE where y shows that no point
    is feasible, else RUNNING.

    Args:
        point: the iterate; y is in K* and s in K by construction.
        sigma: (B, 1) of the scaling.
        weights: of the original data.
        tolerance: of the violation, relative to -c'x or -b'y.
    """
    level = -NEGATIVE / sigma[:, 0] ** 2
    cx, by = point.cx[:, 0], point.by[:, 0]
    falls, separates = cx < level, by < level
    fall, separation = torch.where(falls, -cx, 1.0), torch.where(separates, -by, 1.0)
    ray = torch.maximum(largest(point.Ax + point.s) * weights.unbounded, largest(point.Px)) / fall
    plane = largest(point.Aty) * weights.infeasible / separation
    status = torch.full_like(cx, Status.RUNNING, dtype=torch.int64)
    status = torch.where(separates & (plane < tolerance), Status.PRIMAL_INFEASIBLE, status)
    return torch.where(falls & (ray < tolerance), Status.DUAL_INFEASIBLE, status)


def largest(t: Tensor) -> Tensor:
    """(B,) infinity norm of the rows; 0 when they are empty (m = 0)."""
    return t.abs().amax(1) if t.shape[1] else t.sum(1)
