"""The backend that eliminates what does not hang together."""

from __future__ import annotations

from maps.scs.linear_systems.base import KktMatrix, LinearSolver, LinearSystem
from maps.scs.linear_systems.condensed.factor import cheaper, factor
from maps.scs.problem.sparse_matrix import Pattern

FROM, SIZE = 100, 1500
"""Unknowns below which K is not worth an elimination order; variables, or rows, above which to find one takes long."""
COMPOSED_FROM = 1000
"""Right sides from which on a shared K is worth its condensation: a sparse factor takes an eighth of the time to make,
and its solves half as much again."""


def condensable(A: Pattern, P: Pattern | None, copies: int) -> bool:
    """Whether a condensed K is cheaper than a dense one."""
    m, n = A.shape
    return n + m >= FROM and n <= SIZE and m <= SIZE and cheaper(A, P, copies)


class Condensation(LinearSolver):
    """Static condensation (`factor`)."""

    name = "condensed"
    layout = "sparse"
    can_eliminate = True
    on_host = True

    def suits(self, A: Pattern, P: Pattern | None, copies: int, rights: int | None) -> bool:
        """See `LinearSolver.suits`."""
        return condensable(A, P, copies) and (rights is None or rights >= COMPOSED_FROM)

    def factor(self, matrix: KktMatrix) -> LinearSystem:
        """See `LinearSolver.factor`."""
        return factor(matrix)
