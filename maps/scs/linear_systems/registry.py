"""The backends, one line each, and which of them "auto" stands for."""

from __future__ import annotations

from maps.scs.linear_systems.base import KktMatrix, LinearSolver, LinearSystem
from maps.scs.linear_systems.condensed.backend import Condensation
from maps.scs.linear_systems.conjugate_gradients import ConjugateGradientSolver
from maps.scs.linear_systems.dense import DenseSolver
from maps.scs.linear_systems.sparse import SparseSolver
from maps.scs.problem.sparse_matrix import Pattern

AUTO = "auto"

SOLVERS: dict[str, LinearSolver] = {}
"""By name, in the order in which "auto" asks them."""


def register(solver: LinearSolver) -> None:
    """Make a backend known by its name.

    Raises:
        ValueError: the name is taken.
    """
    if solver.name == AUTO or solver.name in SOLVERS:
        raise ValueError(f"linear_solver: {solver.name!r} is there already")
    SOLVERS[solver.name] = solver


register(Condensation())
register(SparseSolver())
register(DenseSolver())
register(ConjugateGradientSolver())


def names() -> tuple[str, ...]:
    """What `SCS(linear_solver=...)` takes."""
    return (AUTO, *SOLVERS)


def can_eliminate(name: str) -> bool:
    """Whether the backend of a name can; "auto" takes one that does."""
    return name == AUTO or SOLVERS[name].can_eliminate


def choose(name: str, A: Pattern, P: Pattern | None, copies: int, rights: int | None = None) -> LinearSolver:
    """The backend of a name; of "auto" the first one that suits, see `LinearSolver.suits`."""
    if name != AUTO:
        return SOLVERS[name]
    suiting = (solver for solver in SOLVERS.values() if solver.suits(A, P, copies, rights))
    return next(suiting)  # conjugate gradients suit everything


def factor(solver: LinearSolver, matrix: KktMatrix) -> LinearSystem:
    """Prepare K.

    Raises:
        ValueError: see `LinearSolver.check`; FactorizationError: see `LinearSolver.factor`.
    """
    solver.check(matrix)
    return solver.factor(matrix)
