"""In which order to eliminate the unknowns of K, from its sparsity pattern alone.

K is quasi-definite, so that any order works (Vanderbei, "Symmetric quasidefinite matrices", 1995). Unknowns that do
not touch each other are eliminated together, in rounds, so that a round is a handful of operations on a whole batch;
what is left at the end, the core, is dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from maps.scs.linear_systems.condensed import runs
from maps.scs.linear_systems.condensed.graph import EliminationRound, Graph, most_neighbours
from maps.scs.linear_systems.condensed.runs import Index, Places
from maps.scs.linear_systems.condensed.schedule import FactorSchedule, SolveRound, SolveSchedule
from maps.scs.problem.products import Block
from maps.scs.problem.sparse_matrix import Pattern

BLOCK = 0.5
"""Share of stored entries from which on a block between the core and unknowns that touch only it is kept dense."""
SPARSE, DENSE = 0.3, 0.035
"""Nanoseconds for an entry of a sparse and of a dense matrix that a whole batch is multiplied with."""


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
    rounds: tuple[EliminationRound, ...]
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
    def solving(self) -> SolveSchedule:
        """Of a solve."""
        steps = [SolveRound.of(r.pivots, r.pivots[r.edge_pivot], r.edge_other) for r in self.rounds]
        return SolveSchedule(self.size, steps, runs.places(self.block), runs.places(self.core))

    @cached_property
    def factoring(self) -> list[FactorSchedule]:
        """Of the elimination."""
        return [FactorSchedule.of(step) for step in self.rounds]


class Restriction(NamedTuple):
    """What of a plan it takes to solve for the unknowns from some place on where the right side is 0 before it.

    Its unknowns are numbered anew: these first, then whatever else is touched.
    """

    solving: SolveSchedule
    """Rounds that touch nothing are empty."""
    places: list[Places]
    """For each round which of the plan's edges, then which of its pivots these are."""
    in_block: Places
    """Which of the plan's block these are."""


@lru_cache(maxsize=64)
def restriction(found: Plan, first: int) -> Restriction:
    """The restriction for the unknowns from `first` on."""
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
        steps.append(SolveRound.of(number[step.pivots[pivots]], number[pivot[edges]], number[step.edge_other[edges]]))
        places += [runs.places(edges), runs.places(pivots)]
    block, core = (runs.places(number[part]) for part in (found.block[in_block], found.core))
    return Restriction(SolveSchedule(len(order), steps, block, core), places, runs.places(in_block))


@lru_cache(maxsize=64)
def plan(A: Pattern, P: Pattern | None, *, shared: bool, equations: int = 0) -> Plan:
    """The plan for programs with these stored entries (m, n), (n, n); for one K, or for a K per instance.

    Args:
        equations: rows in front whose weight is next to nothing.
    """
    m, n = A.shape
    graph = Graph(n, m)
    A_entry = np.array([graph.entry(n + i, j) for i, j in zip(A.rows.tolist(), A.columns.tolist(), strict=True)])
    P_places = [] if P is None else list(zip(P.rows.tolist(), P.columns.tolist(), strict=True))
    P_entry = np.array([graph.entry(i, j) for i, j in P_places], dtype=np.int64)
    graph.weak[: n + equations] = True
    graph.weak[[i for i, j in P_places if i == j]] = False
    rounds: list[EliminationRound] = []
    while (found := graph.independent(most_neighbours(graph))).size:
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


def _ordered(step: EliminationRound, number: Index) -> EliminationRound:
    """The round with edges and updates in an order that has runs, and its entries numbered anew."""
    edges = runs.order(step.pivots[step.edge_pivot], step.edge_other)
    left, right = (np.argsort(edges)[part] for part in (step.update_left, step.update_right))
    entry, target = number[step.edge_entry[edges]], number[step.update_entry]
    updates = runs.order(left, right, target)
    return EliminationRound(
        step.pivots,
        entry,
        step.edge_pivot[edges],
        step.edge_other[edges],
        target[updates],
        left[updates],
        right[updates],
    )


def _given(between: Index, A_entry: Index, rounds: list[EliminationRound]) -> Block | None:
    """The block as one of A, if all of it is stored there and no round changes it."""
    changed = np.concatenate([A_entry[:0], *(step.update_entry for step in rounds)])
    if not between.size or not np.isin(between, A_entry).all() or np.isin(between, changed).any():
        return None
    order = np.argsort(A_entry)
    return Block.of(order[np.searchsorted(A_entry, between, sorter=order)], len(A_entry))


def _worth(rounds: list[EliminationRound], size: int) -> int:
    """After how many rounds a solve with one K costs least, all of them composed."""
    from scipy import sparse

    composed, left, costs = sparse.eye_array(size, format="csr"), size, [DENSE * size**2]
    for step in rounds:
        ones = np.ones(len(step.edge_entry))
        edges = sparse.csr_matrix((ones, (step.edge_other, step.pivots[step.edge_pivot])), shape=(size, size))
        composed, left = composed + edges @ composed, left - len(step.pivots)
        costs.append(2 * SPARSE * composed.nnz + DENSE * left**2)
    return int(np.argmin(costs))
