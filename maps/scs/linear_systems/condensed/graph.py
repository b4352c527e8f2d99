"""K's sparsity pattern as elimination changes it.

A variable without an entry on P's diagonal (and, where equations have no weight of their own, the row of one) is weak:
it has a tiny pivot until it has support. Every unknown that goes supports its weak neighbours of the other kind, by a
matrix of rank one; a weak unknown that goes uses one support up, and hands the others on to those that had a part in
them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from maps.scs.linear_systems.condensed.runs import Index

DEGREE = 4
"""Most neighbours of an unknown that is eliminated one by one: each pair of them becomes an entry."""


class EliminationRound(NamedTuple):
    """Unknowns (pivots) that are eliminated together, and the entries that this changes.

    An edge is an entry between a pivot and one of its neighbours; an update is a pair of edges of one pivot. Both come
    in an order that has long `runs`.
    """

    pivots: Index
    edge_entry: Index
    """Where the entry is among the plan's."""
    edge_pivot: Index
    """Place of the pivot among `pivots`."""
    edge_other: Index
    """The neighbour, an unknown."""
    update_entry: Index
    """The entry that changes."""
    update_left: Index
    """Edge."""
    update_right: Index
    """Edge."""


class Graph:
    """K's pattern as elimination changes it."""

    def __init__(self, n: int, m: int) -> None:
        self.entries: dict[tuple[int, int], int] = {(i, i): i for i in range(n + m)}
        self.neighbours: list[set[int]] = [set() for _ in range(n + m)]
        self.left = np.arange(n + m)
        self.n = n
        self.weak = np.zeros(n + m, dtype=bool)
        self.supports: list[set[int]] = [set() for _ in range(n + m)]
        """Of weak unknowns: those that went and were not used up."""

    def ready(self, i: int) -> bool:
        """Whether an unknown may go."""
        return not self.weak[i] or bool(self.supports[i])

    def entry(self, i: int, j: int) -> int:
        """Where entry (i, j) is; made if it is new."""
        if i != j:
            self.neighbours[i].add(j)
            self.neighbours[j].add(i)
        return self.entries.setdefault((min(i, j), max(i, j)), len(self.entries))

    def independent(self, limit: int) -> Index:
        """Unknowns that may go and do not touch each other, of at most `limit` neighbours, fewest first."""
        candidates = [(len(self.neighbours[i]), i) for i in self.left.tolist() if self.ready(i)]
        taken, blocked = [], set()
        for degree, i in sorted(candidates):
            if degree > limit:
                break
            if i not in blocked:
                taken.append(i)
                blocked |= self.neighbours[i]
        return np.array(sorted(taken), dtype=np.int64)

    def eliminate(self, pivots: Index) -> EliminationRound:
        """Take unknowns out; their neighbours become neighbours of each other."""
        edges: list[tuple[int, int, int]] = []
        updates: list[tuple[int, int, int]] = []
        for place, i in enumerate(pivots.tolist()):
            around = sorted(self.neighbours[i])
            first = len(edges)
            edges += [(self.entry(i, j), place, j) for j in around]
            for a, j in enumerate(around):
                self.neighbours[j].discard(i)
                updates += [(self.entry(j, around[b]), first + a, first + b) for b in range(a + 1)]
            self.neighbours[i] = set()
            self._support(i, around)
        self.left = np.setdiff1d(self.left, pivots)
        return EliminationRound(pivots, *_columns(edges), *_columns(updates))

    def _support(self, i: int, around: list[int]) -> None:
        """Book that i goes."""
        if self.weak[i]:
            used, *others = sorted(self.supports[i])
            for j in around:
                if self.supports[j] & self.supports[i]:
                    self.supports[j] = (self.supports[j] | set(others)) - {used}
        for j in around:
            if self.weak[j] and (i < self.n) != (j < self.n):
                self.supports[j].add(i)

    def lookup(self, rows: Index, columns: Index) -> Index:
        """(rows, columns) where their entries are, `len(entries)` for none."""
        none = len(self.entries)
        found = [[self.entries.get((min(i, j), max(i, j)), none) for j in columns.tolist()] for i in rows.tolist()]
        return np.array(found, dtype=np.int64).reshape(len(rows), len(columns))


def _columns(rows: list[tuple[int, int, int]]) -> tuple[Index, Index, Index]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def most_neighbours(graph: Graph) -> int:
    """Up to twice the smallest degree, so that cheap unknowns go first."""
    least = min((len(graph.neighbours[i]) for i in graph.left.tolist() if graph.ready(i)), default=DEGREE + 1)
    return min(DEGREE, max(2, 2 * least))
