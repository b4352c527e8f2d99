"""Orbits to solve."""

import math

import torch

from fixedpoint import ProblemFamily
from orbits.kepler import Kepler, Orbit


class RandomOrbits(ProblemFamily):
    """Random orbits from circles to long ellipses (0 < e < 0.9), seen at evenly spaced times."""

    def __init__(self, times: int = 8) -> None:
        self.map: Kepler = Kepler(times)

    def sample(self, batch: int, *, generator: torch.Generator) -> Orbit:
        phase, e = torch.rand(2, batch, 1, generator=generator, dtype=torch.float64)
        times = torch.arange(self.map.signature.size, dtype=torch.float64) / self.map.signature.size
        return Orbit(2 * math.pi * (phase + times), 0.9 * e)
