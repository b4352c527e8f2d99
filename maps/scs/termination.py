"""When an instance is done: the KKT residuals in the original data, from the scaled iterates."""

from __future__ import annotations

import torch
from torch import Tensor

from maps.scs.linear_system import times
from maps.scs.scaling import Data, Scaling


def kkt_residual(data: Data, scaling: Scaling, x: Tensor, y: Tensor, s: Tensor, weights: tuple[float, float]) -> Tensor:
    """(B,) the largest of the primal, dual and gap residuals, each over absolute + relative * (size of its terms).

    Args:
        data: scaled, by `scaling`.
        x: (B, n) scaled iterate, already divided by tau; y and s (B, m) likewise.
        weights: (absolute, relative).
    """
    D, E, sigma = scaling
    zero = torch.zeros_like(x)
    Ax, Aty = times(data.A, x), times(data.A.mT, y)
    Px = zero if data.P is None else times(data.P, x)
    rows, columns = 1 / (D * sigma), 1 / (E * sigma)  # back to the original units
    xPx, cx, by = ((a * b).sum(1, keepdim=True) / sigma**2 for a, b in ((x, Px), (data.c, x), (data.b, y)))
    terms = [
        (rows * (Ax + s - data.b), rows * Ax, rows * s, rows * data.b),
        (columns * (Px + Aty + data.c), columns * Px, columns * Aty, columns * data.c),
        (xPx + cx + by, xPx, cx, by),
    ]
    absolute, relative = weights
    residuals = []
    for residual, *parts in terms:
        size = torch.stack([_largest(part) for part in parts]).amax(0)
        residuals.append(_largest(residual) / (absolute + relative * size))
    return torch.stack(residuals).amax(0)


def _largest(t: Tensor) -> Tensor:
    """(B,) infinity norm of the rows; 0 when they are empty (m = 0)."""
    return t.abs().amax(1) if t.shape[1] else t.sum(1)
