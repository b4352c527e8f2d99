"""Graphs to draw problems on: random ones, and two that people have studied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

REAL = {"les-miserables": ("les_miserables_graph", 77), "karate": ("karate_club_graph", 34)}
"""Function of networkx and number of nodes: who meets whom in the novel, and how often (Knuth 1993); the friendships of
a karate club (Zachary 1977). Both weighted, undirected and connected."""

LEAST_NODES = 8


def size(graph: str, nodes: int | None) -> int:
    """The number of nodes: 77 for "random" unless given.

    Raises:
        ValueError: an unknown graph, a number of nodes that it does not have, or fewer than 8.
    """
    if graph != "random" and graph not in REAL:
        raise ValueError(f"graph: expected one of {['random', *REAL]}, got {graph!r}")
    found = REAL[graph][1] if graph in REAL else 77 if nodes is None else nodes
    if nodes is not None and nodes != found:
        raise ValueError(f"nodes: {graph} has {found}, got {nodes}")
    if found < LEAST_NODES:
        raise ValueError(f"nodes: expected at least {LEAST_NODES}, got {found}")
    return found


def weights(graph: str, nodes: int, batch: int, generator: torch.Generator) -> Tensor:
    """Symmetric weights, float64: (B, n, n), a random graph of its own for each instance; (n, n) of a real graph."""
    if graph in REAL:
        return _real(graph)
    found = torch.stack([_random(nodes, generator) for _ in range(batch)])
    # nodes in random order, so that a position says nothing: generators put hubs first and groups side by side
    order = torch.rand(batch, nodes, generator=generator, dtype=torch.float64).argsort(1)
    return found.take_along_dim(order[:, :, None], 1).take_along_dim(order[:, None], 2)


def jitter(weights: Tensor, spread: float, batch: int, generator: torch.Generator) -> Tensor:
    """(B, n, n) symmetric weights, each edge multiplied by exp(spread * normal)."""
    n = weights.shape[-1]
    noise = torch.randn(batch, n, n, generator=generator, dtype=torch.float64).triu()
    return weights * torch.exp(spread * (noise + noise.triu(1).mT))


def sparse(batch: int, nodes: int, density: float, generator: torch.Generator) -> Tensor:
    """(B, n) uniform on [0, 1] at a random share `density` of the nodes, at one at least; else 0."""
    chance, values = torch.rand(2, batch, nodes, generator=generator, dtype=torch.float64)
    return torch.where((chance < density) | (chance == chance.amin(1, keepdim=True)), values, 0.0)


def uniform(batch: int, limits: Sequence[float], generator: torch.Generator) -> Tensor:
    """(B,) uniform between two limits, float64."""
    low, high = limits
    return low + (high - low) * torch.rand(batch, generator=generator, dtype=torch.float64)


def limits(name: str, given: Sequence[float], *, closed: bool) -> tuple[float, float]:
    """Two limits in [0, 1), or in [0, 1] when `closed`.

    Raises:
        ValueError: other than that.
    """
    pair = tuple(float(value) for value in given)
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= 1 or (pair[1] == 1 and not closed):
        raise ValueError(
            f"{name}: expected two limits in [0, 1{']' if closed else ')'}, the smaller first, got {given}"
        )
    return pair[0], pair[1]


def share(name: str, given: float) -> float:
    """A share in (0, 1].

    Raises:
        ValueError: other than that.
    """
    if not 0 < given <= 1:
        raise ValueError(f"{name}: expected a share in (0, 1], got {given}")
    return given


@cache
def _real(graph: str) -> Tensor:
    """(n, n) its weights."""
    import networkx as nx

    return torch.as_tensor(nx.to_numpy_array(getattr(nx, REAL[graph][0])()), dtype=torch.float64)


def _random(nodes: int, generator: torch.Generator) -> Tensor:
    """(n, n) adjacency of a connected graph: one of preferential attachment (Barabasi & Albert 1999), a small world
    (Watts & Strogatz 1998), or one with 1 to 6 planted groups (Condon & Karp 2001; one group is an Erdos-Renyi graph).
    """
    import networkx as nx

    seed, kind, variety = torch.randint(2**31, (3,), generator=generator).tolist()
    graph: Any
    if kind % 3 == 0:
        graph = nx.barabasi_albert_graph(nodes, 1 + variety % 2, seed)
    elif kind % 3 == 1:
        graph = nx.watts_strogatz_graph(nodes, 4, (0.02, 0.05, 0.1)[variety % 3], seed)
    else:
        sizes = [len(part) for part in np.array_split(np.arange(nodes), 1 + variety % 6)]
        graph = nx.random_partition_graph(sizes, min(1.0, 4 / min(sizes)), 0.5 / nodes, seed)
    # what the draw left apart is joined: a path through the parts
    nx.add_path(graph, [min(part) for part in nx.connected_components(graph)])
    rows, columns = torch.tensor(list(graph.edges)).T
    one = torch.tensor(1.0, dtype=torch.float64)
    adjacency = torch.zeros(nodes, nodes, dtype=torch.float64).index_put((rows, columns), one)
    return adjacency + adjacency.mT
