"""In which order to eliminate the unknowns of K, from its sparsity pattern alone.

K is quasi-definite, so that any order works (Vanderbei, "Symmetric quasidefinite matrices", 1995). Unknowns that do
not touch each other are eliminated together, in rounds, so that a round is a handful of operations on a whole batch;
what is left at the end, the core, is dense.

A variable without an entry on P's diagonal (and, where equations have no weight of their own, the row of one) is weak:
it has a tiny pivot until it has support. Every unknown that goes supports its weak neighbours of the other kind, by a
matrix of rank one; a weak unknown that goes uses one support up, and hands the others on to those that had a part in
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from maps.scs.linear_systems.condensed import runs
from maps.scs.linear_systems.condensed.runs import Index, Places
from maps.scs.problem.products import Block
from maps.scs.problem.sparse_matrix import Pattern

DEGREE = 4
"""Most neighbours of an unknown that is eliminated one by one: each pair of them becomes an entry."""
BLOCK = 0.5
"""Share of stored entries from which on a block between the core and unknowns that touch only it is kept dense."""
SPARSE, DENSE = 0.3, 0.035
"""Nanoseconds for an entry of a sparse and of a dense matrix that a whole batch is multiplied with."""


class Round(NamedTuple):
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


@dataclass(frozen=True, eq=False)
class Plan:
    """An elimination order. Unknowns 0..n-1 are the variables, n..n+m-1 the rows; entry i < n + m is a diagonal one."""

    n: int
    """Variables; the other unknowns are rows, the first `equations` of which have no weight to speak of."""
    equations: int
    size: int
    entries: int
    """Of K and what elimination adds, but for those in `given`: n + m on the diagonal, then each pair once."""
    A_entry: Index
    """Where the entries of A are that are not in `given`; `A_rest` which ones these are."""
    A_rest: Index
    P_entry: Index
    """(nnz of P,) the same; an off-diagonal pair of P goes to one place twice, and counts once."""
    rounds: tuple[Round, ...]
    block: Index
    """Unknowns that touch the core only, not each other: eliminated last, by dense products."""
    core: Index
    """Unknowns that are left, the variables first."""
    block_entry: Index
    """(block, core) the entries between them; `entries` where there is none."""
    given: Block | None
    """The same as a block of A, where it is one that no round changes."""
    core_entry: Index
    """(core, core) the same for the core."""

    @property
    def edges(self) -> int:
        """Of all rounds."""
        return sum(len(r.edge_entry) for r in self.rounds)

    @cached_property
    def way(self) -> Way:
        """Of a solve."""
        steps = [Step.of(r.pivots, r.pivots[r.edge_pivot], r.edge_other) for r in self.rounds]
        return Way(self.size, steps, runs.places(self.block), runs.places(self.core))

    @cached_property
    def work(self) -> list[Work]:
        """Of the elimination."""
        return [Work.of(step) for step in self.rounds]


class Work(NamedTuple):
    """A `Round` as places of the entries."""

    pivot: Places
    edge: Places
    of_pivot: Places
    """The place of an edge's pivot among the pivots."""
    updates: list[tuple[Places, ...]]
    """[(update, entry that changes, its edges)], for `runs`; in a run no entry comes twice."""

    @classmethod
    def of(cls, step: Round) -> Work:
        """Of a round."""
        pivot, edge, of_pivot = map(runs.places, (step.pivots, step.edge_entry, step.edge_pivot))
        return cls(pivot, edge, of_pivot, runs.pieces(step.update_entry, step.update_left, step.update_right))


class Step(NamedTuple):
    """What a solve does in a round."""

    pivots: list[tuple[Places, ...]]
    """[(pivot, unknown)], for `runs`."""
    edges: list[tuple[Places, ...]]
    """[(edge, its pivot, its other end)]; in a run no unknown comes twice."""

    @classmethod
    def of(cls, pivots: Index, pivot: Index, other: Index) -> Step:
        """Args: the unknowns of the pivots, and of both ends of the edges."""
        return cls(runs.pieces(pivots), runs.pieces(pivot, other))


class Way(NamedTuple):
    """What a solve does."""

    size: int
    """Unknowns."""
    steps: list[Step]
    block: Places
    core: Places


class Excerpt(NamedTuple):
    """What of a plan it takes to solve for the unknowns from some place on where the right side is 0 before it.

    Its unknowns are numbered anew: these first, then whatever else is touched.
    """

    way: Way
    """Rounds that touch nothing are empty."""
    places: list[Places]
    """For each round which of the plan's edges, then which of its pivots these are."""
    in_block: Places
    """Which of the plan's block these are."""


@lru_cache(maxsize=64)
def excerpt(found: Plan, first: int) -> Excerpt:
    """The excerpt for the unknowns from `first` on."""
    touched = np.arange(found.size) >= first
    for step in found.rounds:  # what a pivot sends forward comes back to it from the same unknowns
        touched[step.edge_other[touched[step.pivots[step.edge_pivot]]]] = True
    in_block = np.flatnonzero(touched[found.block])
    touched[found.core] = True
    order = np.concatenate([np.arange(first, found.size), np.flatnonzero(touched[:first])])
    number = np.full(found.size, -1)
    number[order] = np.arange(len(order))
    steps, places = [], []
    for step in found.rounds:
        pivot = step.pivots[step.edge_pivot]
        edges, pivots = np.flatnonzero(touched[pivot]), np.flatnonzero(touched[step.pivots])
        edges = edges[runs.order(number[pivot[edges]], number[step.edge_other[edges]])]
        steps.append(Step.of(number[step.pivots[pivots]], number[pivot[edges]], number[step.edge_other[edges]]))
        places += [runs.places(edges), runs.places(pivots)]
    block, core = (runs.places(number[part]) for part in (found.block[in_block], found.core))
    return Excerpt(Way(len(order), steps, block, core), places, runs.places(in_block))


@lru_cache(maxsize=64)
def plan(A: Pattern, P: Pattern | None, *, shared: bool, equations: int = 0) -> Plan:
    """The plan for programs with these stored entries (m, n), (n, n); for one K, or for a K per instance.

    Args:
        equations: rows in front whose weight is next to nothing.
    """
    m, n = A.shape
    graph = _Graph(n, m)
    A_entry = np.array([graph.entry(n + i, j) for i, j in zip(A.rows.tolist(), A.columns.tolist(), strict=True)])
    P_places = [] if P is None else list(zip(P.rows.tolist(), P.columns.tolist(), strict=True))
    P_entry = np.array([graph.entry(i, j) for i, j in P_places], dtype=np.int64)
    graph.weak[: n + equations] = True
    graph.weak[[i for i, j in P_places if i == j]] = False
    rounds: list[Round] = []
    while (found := graph.independent(_limit(graph))).size:
        rounds.append(graph.eliminate(found))
    if shared:
        rounds = rounds[: _worth(rounds, n + m)]
    core = np.setdiff1d(np.arange(n + m), np.concatenate([np.empty(0, dtype=np.int64), *(r.pivots for r in rounds)]))
    block = core[:0]
    if not shared and len(core):
        candidates = graph.independent(n + m)
        rest = np.setdiff1d(core, candidates)
        if rest.size * candidates.size and (graph.lookup(rest, candidates) < len(graph.entries)).mean() >= BLOCK:
            core, block = rest, candidates
    A_entry, between = A_entry.astype(np.int64), graph.lookup(block, core)
    given = _given(between, A_entry, rounds)
    kept = np.ones(len(graph.entries) + 1, dtype=bool)
    if given is not None:
        kept[between] = False
    number = np.cumsum(kept) - 1
    rest = np.flatnonzero(kept[A_entry])
    return Plan(
        n=n,
        equations=equations,
        size=n + m,
        entries=int(kept.sum()) - 1,
        A_entry=number[A_entry[rest]],
        A_rest=rest,
        P_entry=number[P_entry],
        rounds=tuple(_ordered(step, number) for step in rounds),
        block=block,
        core=core,
        block_entry=number[between],
        given=given,
        core_entry=number[graph.lookup(core, core)],
    )


def _ordered(step: Round, number: Index) -> Round:
    """The round with edges and updates in an order that has runs, and its entries numbered anew."""
    edges = runs.order(step.pivots[step.edge_pivot], step.edge_other)
    left, right = (np.argsort(edges)[part] for part in (step.update_left, step.update_right))
    entry, target = number[step.edge_entry[edges]], number[step.update_entry]
    updates = runs.order(left, right, target)
    return Round(
        step.pivots,
        entry,
        step.edge_pivot[edges],
        step.edge_other[edges],
        target[updates],
        left[updates],
        right[updates],
    )


def _given(between: Index, A_entry: Index, rounds: list[Round]) -> Block | None:
    """The block as one of A, if all of it is stored there and no round changes it."""
    changed = np.concatenate([A_entry[:0], *(step.update_entry for step in rounds)])
    if not between.size or not np.isin(between, A_entry).all() or np.isin(between, changed).any():
        return None
    order = np.argsort(A_entry)
    return Block.of(order[np.searchsorted(A_entry, between, sorter=order)], len(A_entry))


def _worth(rounds: list[Round], size: int) -> int:
    """After how many rounds a solve with one K costs least, all of them composed."""
    from scipy import sparse

    composed, left, costs = sparse.eye_array(size, format="csr"), size, [DENSE * size**2]
    for step in rounds:
        ones = np.ones(len(step.edge_entry))
        edges = sparse.csr_matrix((ones, (step.edge_other, step.pivots[step.edge_pivot])), shape=(size, size))
        composed, left = composed + edges @ composed, left - len(step.pivots)
        costs.append(2 * SPARSE * composed.nnz + DENSE * left**2)
    return int(np.argmin(costs))


def _limit(graph: _Graph) -> int:
    """Up to twice the smallest degree, so that cheap unknowns go first."""
    least = min((len(graph.neighbours[i]) for i in graph.left.tolist() if graph.ready(i)), default=DEGREE + 1)
    return min(DEGREE, max(2, 2 * least))


class _Graph:
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

    def eliminate(self, pivots: Index) -> Round:
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
        return Round(pivots, *_columns(edges), *_columns(updates))

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
