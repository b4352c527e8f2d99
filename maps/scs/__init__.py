"""SCS, the splitting conic solver, as a fixed-point map (facts: O'Donoghue et al. 2016, O'Donoghue 2021)."""

from maps.scs.front import ConicSolution, solve
from maps.scs.kkt import kkt_error
from maps.scs.linear_system import FactorizationError
from maps.scs.map import SCS, ConicPoint
from maps.scs.program import ConeProgram

__all__ = ["SCS", "ConeProgram", "ConicPoint", "ConicSolution", "FactorizationError", "kkt_error", "solve"]
