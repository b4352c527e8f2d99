"""Problems from networkx graphs. networkx is imported when one is made, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maps.graphs.pagerank import PageRankProblem
from maps.graphs.value_iteration import ValueProblem

if TYPE_CHECKING:
    import networkx as nx


def pagerank_problem(
    graph: nx.Graph | Sequence[nx.Graph],
    personalization: Mapping[Any, float] | None = None,
    weight: str | None = "weight",
    damping: float = 0.85,
) -> PageRankProblem:
    """The problem that `networkx.pagerank(graph, damping, personalization, weight=weight)` solves, float64.

    Args:
        graph: any networkx graph, or several with the same number of nodes (a batch). Nodes in the graph's own order.
        personalization: node -> number >= 0, other nodes 0; None for uniform.
        weight: the edge attribute to use (1 where an edge has none); None for 1.
        damping: networkx's alpha.

    Raises:
        ValueError: graphs of different sizes, or nodes in `personalization` that a graph does not have.
    """
    import networkx as nx

    def matrix(one: nx.Graph) -> Tensor:
        return torch.as_tensor(nx.to_numpy_array(one, weight=weight), dtype=torch.float64)

    def target(one: nx.Graph) -> Tensor:
        wanted = dict.fromkeys(one, 1.0) if personalization is None else personalization
        return _on_nodes(one, wanted, "personalization")

    adjacency, v = (_each(graph, part) for part in (matrix, target))
    return PageRankProblem(adjacency, v, torch.tensor(damping, dtype=torch.float64))


def value_problem(
    graph: nx.Graph | Sequence[nx.Graph],
    reward: Mapping[Any, float],
    gamma: float = 0.95,
    slip: float = 0.0,
) -> ValueProblem:
    """Value iteration on a networkx graph, float64; edges may be used in their direction, whatever their weight.

    Args:
        graph: any networkx graph, or several with the same number of nodes (a batch). Nodes in the graph's own order.
        reward: node -> R, other nodes 0.
        gamma, slip: as in `ValueProblem`.

    Raises:
        ValueError: graphs of different sizes, or nodes in `reward` that a graph does not have.
    """
    import networkx as nx

    def matrix(one: nx.Graph) -> Tensor:
        return torch.as_tensor(nx.to_numpy_array(one, weight=None)) != 0

    adjacency, R = _each(graph, matrix), _each(graph, lambda one: _on_nodes(one, reward, "reward"))
    return ValueProblem(adjacency, R, *(torch.tensor(value, dtype=torch.float64) for value in (gamma, slip)))


def _each(graph: Any, function: Callable[[Any], Tensor]) -> Tensor:
    """function(graph), or the stacked results when there are several graphs."""
    if not isinstance(graph, Sequence):
        return function(graph)
    if len({len(one) for one in graph}) != 1:
        raise ValueError(f"graph: expected one number of nodes, got {[len(one) for one in graph]}")
    return torch.stack([function(one) for one in graph])


def _on_nodes(graph: Any, values: Mapping[Any, float], name: str) -> Tensor:
    """(n,) the values in the order of the graph's nodes."""
    if unknown := [node for node in values if node not in graph]:
        raise ValueError(f"{name}: not in the graph: {unknown[:5]}")
    return torch.tensor([float(values.get(node, 0.0)) for node in graph], dtype=torch.float64)
