"""SCS, the splitting conic solver, as a fixed-point map (facts: O'Donoghue et al. 2016, O'Donoghue 2021)."""

from maps.scs.certify.kkt import kkt_error
from maps.scs.iteration.map import SCS
from maps.scs.iteration.state import ConicPoint
from maps.scs.linear_systems import FactorizationError
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import SparseMatrix
from maps.scs.solve import ConicSolution, prepare, solve

__all__ = [
    "SCS",
    "ConeProgram",
    "ConicPoint",
    "ConicSolution",
    "FactorizationError",
    "SparseMatrix",
    "kkt_error",
    "prepare",
    "solve",
]
