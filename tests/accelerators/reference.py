"""Anderson acceleration written the plain way, for one instance: what ours is compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Vector = np.ndarray


def anderson(f: Callable[[Vector], Vector], x: Vector, memory: int, steps: int, first_type: bool) -> list[Vector]:
    """The points x_0, ..., x_{steps - 1}, the system of each step assembled and solved afresh."""
    points, residuals = [x], [f(x) - x]
    x = x + residuals[0]
    while len(points) < steps:
        points.append(x)
        residuals.append(f(x) - x)
        S = np.diff(np.array(points[-memory - 1 :]), axis=0).T
        Y = np.diff(np.array(residuals[-memory - 1 :]), axis=0).T
        left = S if first_type else Y
        gamma = np.linalg.lstsq(left.T @ Y, left.T @ residuals[-1], rcond=None)[0] if first_type else None
        if gamma is None:
            gamma = np.linalg.lstsq(Y, residuals[-1], rcond=None)[0]
        x = points[-1] + residuals[-1] - (S + Y) @ gamma
    return points
