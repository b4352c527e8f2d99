"""What all conic families share: the SCS map, the referee and the scs wheel as a peer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fixedpoint import ProblemFamily
from fixedpoint.experiments.evaluation import Peer
from fixedpoint.search_space import SearchSpace
from fixedpoint.solve.front import solved
from maps.scs.certify.kkt import kkt_error, kkt_merit
from maps.scs.iteration.map import SCS
from maps.scs.iteration.state import ConicPoint
from maps.scs.problem.program import ConeProgram
from maps.scs.scs_package import ScsWheel

PAPER = {"rho_x": 1e-3, "scale": 1.0, "zero_cone_factor": 1.0, "tau_factor": 1.0, "alpha": 1.5}
"""The metric of SCS 2, which the neural-acceleration paper ran: every R_y = 1."""


class ConicFamily(ProblemFamily):
    """A family whose map is `SCS` and whose error is the KKT error in the original data."""

    map: SCS
    tunable: ClassVar[Mapping[str, SearchSpace]] = SCS.tunable
    error_kind = "kkt"

    def error(self, problem: ConeProgram, output: ConicPoint, residual: Tensor) -> Tensor:
        """(B,) `kkt_error`."""
        return kkt_error(problem, *output)

    def merit(self, problem: ConeProgram, output: ConicPoint, residual: Tensor) -> Tensor:
        """(B,) `kkt_merit`; infinite where the map's residual is, since tau vanishes there."""
        return torch.where(torch.isposinf(residual), torch.inf, kkt_merit(problem, *output))

    def solutions(self, problem: ConeProgram) -> Tensor:
        """(B, n) fixed points of this family's map, from the map itself, solved to 1e-9.

        Raises:
            ArithmeticError: an instance was not solved; the message names it.
        """
        return solved(self.map, problem)

    def peers(self) -> list[Peer]:
        """The scs package as it comes."""
        return [ScsWheel("scs, its defaults", {})]

    def matched_peers(self) -> list[Peer]:
        """The scs package with our static settings, as far as it has them: with its own acceleration and, "eager", with
        acceleration at every iteration.
        """
        ours = {name: getattr(self.map.settings, name) for name in ("normalize", "scale", "alpha", "rho_x")}
        ours["normalize"] = self.map.settings.normalize is not False  # the package has no "shared"
        ours["adaptive_scale"] = False
        eager = {"acceleration_interval": 1, "acceleration_lookback": 10}
        return [ScsWheel("scs, our settings", ours), ScsWheel("scs, our settings, eager", {**ours, **eager})]
