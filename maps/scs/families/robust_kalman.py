"""Robust Kalman smoothing of a vehicle's track, through CVXPY.

    minimize   sum_t ||w_t||^2 + mu sum_t huber_rho(||v_t||)
    subject to x_{t+1} = F x_t + G w_t,   y_t = H x_t + v_t,   t = 1..T

The model is that of CVXPY's example "robust Kalman filtering for vehicle tracking" (position and velocity in the plane,
damped): F, G, H, mu and rho are fixed, the measurements y vary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fixedpoint import Choice
from fixedpoint.search_space import SearchSpace
from maps.scs.families.parametric import Parametric, ParametricFamily
from maps.scs.family import PAPER
from maps.scs.problem.program import ConeProgram

STEPS = 50
"""T."""
INTERVAL = 0.05
"""Seconds between measurements."""
DAMPING = 0.05
"""Share of the velocity lost in a second."""
MU = RHO = 2
"""Weight of the measurement errors, and the length from which on they count linearly."""


class RobustKalman(ParametricFamily):
    """Tracks of a vehicle that starts at rest, with forces and measurement errors ~ N(0, 1) and a fifth of outliers.

    The setting "paper" is the neural-acceleration paper's: conic form in the metric of SCS 2; "metric" has the state of
    the inequalities alone, and its tuned settings a learned metric of these (`maps.scs.learn_metric`).

    Args:
        form: "quadratic" (the squares in P; n = 604, m = 600) or "conic" (in second-order cones; n = 655, m = 852, the
            paper's).
        noise: standard deviation of forces and measurement errors.
        outliers: probability that a measurement is an outlier, 0 to 1.
        size: standard deviation of an outlier's error.
        **settings: arguments of `SCS`.

    Raises:
        ValueError: an unknown form, a negative noise or size, a probability out of range.
    """

    needs = ("cvxpy", "scs")
    tunable: ClassVar[Mapping[str, SearchSpace]] = {"form": Choice(("quadratic", "conic")), **ParametricFamily.tunable}
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"form": "conic", **PAPER},
        "metric": {"form": "quadratic", "eliminate": True, "normalize": False},
    }
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "outliers x2": {"size": 40.0},
        "outliers x4": {"size": 80.0},
        "noise x2": {"noise": 2.0},
    }

    def __init__(
        self,
        form: str = "quadratic",
        noise: float = 1.0,
        outliers: float = 0.2,
        size: float = 20.0,
        **settings: Any,
    ) -> None:
        if form not in ("quadratic", "conic"):
            raise ValueError(f'form: expected "quadratic" or "conic", got {form!r}')
        if not noise >= 0 or not size >= 0:
            raise ValueError(f"noise, size: expected numbers >= 0, got {noise!r}, {size!r}")
        if not 0 <= outliers <= 1:
            raise ValueError(f"outliers: expected a probability, got {outliers!r}")
        self.noise, self.outliers, self.size = noise, outliers, size
        super().__init__(form, template(form).program, settings)

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        """A batch of programs, float64; b varies, A, c and P are shared."""
        return template(self.form).at(self.measurements(batch, generator=generator).mT.flatten(1))

    def measurements(self, batch: int, *, generator: torch.Generator) -> Tensor:
        """(batch, 2, T) float64 measured positions y."""
        force, error = (torch.stack(part) for part in zip(*(self._draw(generator) for _ in range(batch)), strict=True))
        F, G, H = (torch.from_numpy(matrix) for matrix in dynamics())
        x, positions = force.new_zeros(batch, 4), []
        for t in range(STEPS):
            positions.append(x @ H.mT)
            x = x @ F.mT + force[:, :, t] @ G.mT
        return torch.stack(positions, 2) + error

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(w (2, T), v (2, T)) of one instance."""
        w, v, gross = (torch.randn(2, STEPS, generator=generator, dtype=torch.float64) for _ in range(3))
        outlier = torch.rand(STEPS, generator=generator, dtype=torch.float64) < self.outliers
        return self.noise * w, torch.where(outlier, self.size * gross, self.noise * v)


def dynamics() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(F (4, 4), G (4, 2), H (2, 4)): x = (position, velocity), w a force, y the position."""
    one = np.eye(2)
    kept = 1 - DAMPING * INTERVAL
    F = np.block([[one, (1 - DAMPING * INTERVAL / 2) * INTERVAL * one], [0 * one, kept * one]])
    G = np.vstack([INTERVAL**2 / 2 * one, INTERVAL * one])
    return F, G, np.hstack([one, 0 * one])


@cache
def template(form: str) -> Parametric:
    """The program of a form as a function of the measurements, compiled once per process."""
    import cvxpy as cp

    F, G, H = dynamics()
    y = cp.Parameter((2, STEPS))
    x, w, v = cp.Variable((4, STEPS + 1)), cp.Variable((2, STEPS)), cp.Variable((2, STEPS))
    errors: list[Any] = [cp.huber(cp.norm(v[:, t]), RHO) for t in range(STEPS)]
    moves = [x[:, t + 1] == F @ x[:, t] + G @ w[:, t] for t in range(STEPS)]
    measures = [H @ x[:, t] + v[:, t] == y[:, t] for t in range(STEPS)]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w) + MU * sum(errors)), [*moves, *measures])
    return Parametric.of(problem, [y], quadratic=form == "quadratic")
