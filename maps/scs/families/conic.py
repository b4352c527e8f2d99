"""What all conic families share: the SCS map, the referee and the scs wheel as a peer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fixedpoint import ProblemFamily
from fixedpoint.evaluation import Peer
from fixedpoint.settings import Setting
from maps.scs.kkt import kkt_error
from maps.scs.map import SCS, ConicPoint
from maps.scs.peer import ScsWheel
from maps.scs.program import ConeProgram


class ConicFamily(ProblemFamily):
    """A family whose map is `SCS` and whose error is the KKT error in the original data."""

    map: SCS
    tunable: ClassVar[Mapping[str, Setting]] = SCS.tunable
    error_kind = "kkt"

    def error(self, problem: ConeProgram, output: ConicPoint, residual: Tensor) -> Tensor:
        """(B,) `kkt_error`."""
        return kkt_error(problem, *output)

    def peers(self) -> list[Peer]:
        """The scs package as it comes."""
        return [ScsWheel("scs, its defaults", {})]

    def matched_peers(self) -> list[Peer]:
        """The scs package with our static settings (as far as it has them) and its acceleration at every iteration."""
        ours = {name: getattr(self.map, name) for name in ("normalize", "scale", "alpha", "rho_x")}
        static = {"adaptive_scale": False, "acceleration_interval": 1, "acceleration_lookback": 10}
        return [ScsWheel("scs, our settings", {**static, **ours})]
