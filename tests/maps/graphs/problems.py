"""Graphs and decisions to rank and to value."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from maps.graphs import (
    ValueProblem,
    value_problem,
)


def web() -> nx.DiGraph:
    """Directed and weighted, with two dangling nodes ("d" by a zero weight), a loop and a node nobody links to."""
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(
        [("a", "b", 2.0), ("b", "a", 1.0), ("b", "c", 0.5), ("c", "c", 1.5), ("c", "e", 3.0), ("d", "a", 0.0)]
    )
    graph.add_edge("f", "a")  # no weight: 1
    graph.add_edge("a", "d", weight=0.7)
    return graph


RANKED: dict[str, tuple[nx.Graph, dict[str, Any]]] = {
    "directed": (web(), {}),
    "personalised": (web(), {"personalization": {"c": 2, "d": 5}, "damping": 0.95}),
    "unweighted": (web(), {"weight": None}),
    "undirected": (nx.les_miserables_graph(), {"personalization": {"Valjean": 1.0}, "damping": 0.97}),
    "multigraph": (nx.MultiDiGraph([(0, 1), (0, 1), (1, 0), (0, 2)]), {"damping": 0.0}),
}


def networkx_ranks(graph: nx.Graph, options: dict[str, Any], **more: Any) -> Tensor:
    given = {"tol": 1e-15, "max_iter": 10_000, **more}
    ranks = nx.pagerank(
        graph,
        alpha=options.get("damping", 0.85),
        personalization=options.get("personalization"),
        weight=options.get("weight", "weight"),
        **given,
    )
    return torch.tensor([ranks[node] for node in graph], dtype=torch.float64)


def decisions() -> ValueProblem:
    """A small directed decision process with a node to stay at (5) and a node that leads into it; two discounts."""
    graph = nx.DiGraph([(0, 1), (0, 2), (1, 3), (1, 0), (2, 4), (2, 0), (3, 0), (3, 3), (4, 5), (4, 1)])
    one = value_problem(graph, {3: 1.0, 4: 0.9, 5: 0.3, 0: -0.2})
    pair = [torch.tensor(values, dtype=torch.float64) for values in ([0.9, 0.7], [0.0, 0.35])]
    return one._replace(gamma=pair[0], slip=pair[1])


def transitions(problem: ValueProblem, policy: tuple[int, ...], row: int) -> np.ndarray:
    """The transition matrix of a policy, entry by entry."""
    adjacency, slip = problem.adjacency.numpy(), float(problem.slip[row])
    P = np.zeros_like(adjacency, dtype=float)
    for s, chosen in enumerate(policy):
        neighbours = np.flatnonzero(adjacency[s])
        P[s, chosen] += 1 - slip
        for u in neighbours if len(neighbours) else [s]:
            P[s, u] += slip / max(len(neighbours), 1)
    return P
