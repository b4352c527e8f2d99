"""Kepler's equation E - e sin E = M: where a planet is on its ellipse."""

from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint import FixedPointMap, Signature


class Orbit(NamedTuple):
    mean_anomaly: Tensor  # (B, n) M, at n times of each of B orbits
    eccentricity: Tensor  # (B, 1) e, in [0, 1)


class Kepler(FixedPointMap[Orbit, Orbit]):
    """E <- M + e sin E, at several times of an orbit at once: a contraction with factor e."""

    def __init__(self, times: int = 8) -> None:
        self.signature = Signature(size=times, traits=frozenset({"contractive", "nonexpansive"}))

    def initial(self, orbit: Orbit) -> Tensor:
        return orbit.mean_anomaly

    def forward(self, x: Tensor, orbit: Orbit) -> Tensor:
        return orbit.mean_anomaly + orbit.eccentricity * torch.sin(x)
