"""Personalised PageRank on random and on real graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fixedpoint import ProblemFamily
from maps.graphs.families import draw
from maps.graphs.pagerank import PageRank, PageRankProblem, pagerank_values


class GraphRanks(ProblemFamily):
    """PageRank with random edge weights, a sparse random personalisation and a random damping.

    Weights of a random graph are exp(normal); those of a real one are multiplied by exp(0.3 normal).

    Args:
        graph: "random" (a graph of its own for each instance: preferential attachment, small world or planted
            groups), "les-miserables" (77 nodes) or "karate" (34 nodes).
        nodes: n, 77 unless given; a real graph has its own.
        damping: limits between which the damping is uniform.
        sources: expected share of nodes with a personalisation other than 0; at least one has.

    Raises:
        ValueError: an unknown graph, or a number out of range.
    """

    needs = ("networkx",)
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "les-miserables": {"graph": "les-miserables"},
        "damping": {"damping": [0.97, 0.99]},
        "personalisation": {"sources": 0.2},
    }

    def __init__(
        self,
        graph: str = "random",
        nodes: int | None = None,
        damping: Sequence[float] = (0.85, 0.97),
        sources: float = 0.1,
    ) -> None:
        self.graph = graph
        self.map = PageRank(draw.size(graph, nodes))
        self.damping = draw.limits("damping", damping, closed=False)
        self.sources = draw.share("sources", sources)

    def sample(self, batch: int, *, generator: torch.Generator) -> PageRankProblem:
        """A batch with weights, personalisation and damping of its own for each instance, float64."""
        n = self.map.signature.size
        weights = draw.weights(self.graph, n, batch, generator)
        spread = 1.0 if self.graph == "random" else 0.3
        return PageRankProblem(
            adjacency=draw.jitter(weights, spread, batch, generator),
            personalisation=draw.sparse(batch, n, self.sources, generator),
            damping=draw.uniform(batch, self.damping, generator),
        )

    def reference(self, problem: PageRankProblem) -> Tensor:
        """By a linear solve."""
        return pagerank_values(problem)
