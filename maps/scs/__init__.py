"""SCS, the splitting conic solver, as a fixed-point map (facts: O'Donoghue et al. 2016, O'Donoghue 2021)."""

from maps.scs.front import ConicSolution, solve
from maps.scs.kkt import kkt_error
from maps.scs.linear_systems import FactorizationError
from maps.scs.map import SCS
from maps.scs.matrix import SparseMatrix
from maps.scs.program import ConeProgram
from maps.scs.state import ConicPoint

__all__ = [
    "SCS",
    "ConeProgram",
    "ConicPoint",
    "ConicSolution",
    "FactorizationError",
    "SparseMatrix",
    "kkt_error",
    "solve",
]
