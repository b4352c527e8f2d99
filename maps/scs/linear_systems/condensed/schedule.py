"""What factoring and solving do, round by round, as places in the rows of a batch."""

from __future__ import annotations

from typing import NamedTuple

from maps.scs.linear_systems.condensed import runs
from maps.scs.linear_systems.condensed.graph import EliminationRound
from maps.scs.linear_systems.condensed.runs import Index, Places


class FactorSchedule(NamedTuple):
    """A `EliminationRound` as places of the entries."""

    pivot: Places
    edge: Places
    of_pivot: Places
    """The place of an edge's pivot among the pivots."""
    updates: list[tuple[Places, ...]]
    """[(update, entry that changes, its edges)], for `runs`; in a run no entry comes twice."""

    @classmethod
    def of(cls, step: EliminationRound) -> FactorSchedule:
        """Of a round."""
        pivot, edge, of_pivot = map(runs.places, (step.pivots, step.edge_entry, step.edge_pivot))
        return cls(pivot, edge, of_pivot, runs.pieces(step.update_entry, step.update_left, step.update_right))


class SolveRound(NamedTuple):
    """What a solve does in a round."""

    pivots: list[tuple[Places, ...]]
    """[(pivot, unknown)], for `runs`."""
    edges: list[tuple[Places, ...]]
    """[(edge, its pivot, its other end)]; in a run no unknown comes twice."""

    @classmethod
    def of(cls, pivots: Index, pivot: Index, other: Index) -> SolveRound:
        """Args: the unknowns of the pivots, and of both ends of the edges."""
        return cls(runs.pieces(pivots), runs.pieces(pivot, other))


class SolveSchedule(NamedTuple):
    """What a solve does."""

    size: int
    """Unknowns."""
    steps: list[SolveRound]
    block: Places
    core: Places
