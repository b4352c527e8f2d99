"""Wanderers on random and on real graphs: value iteration with sparse rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fixedpoint import ProblemFamily
from maps.graphs.families import draw
from maps.graphs.value_iteration import ValueIteration, ValueProblem, optimal_values


class GraphValues(ProblemFamily):
    """Value iteration with sparse random rewards, a random discount factor and a random chance to slip.

    Args:
        graph: "random" (a graph of its own for each instance: preferential attachment, small world or planted
            groups), "les-miserables" (77 nodes) or "karate" (34 nodes); a real graph is shared by the batch.
        nodes: n, 77 unless given; a real graph has its own.
        gamma: limits between which the discount factor is uniform.
        slip: limits between which the probability to slip is uniform.
        density: expected share of nodes with a reward; at least one has.
        size: of the largest possible reward; rewards are uniform between 0 and that.

    Raises:
        ValueError: an unknown graph, or a number out of range.
    """

    needs = ("networkx",)
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "les-miserables": {"graph": "les-miserables"},
        "size": {"size": 2.0},
        "sparsity": {"density": 0.2},
        "gamma": {"gamma": [0.96, 0.98]},
        "noise": {"slip": [0.3, 0.5]},
    }

    def __init__(
        self,
        graph: str = "random",
        nodes: int | None = None,
        gamma: Sequence[float] = (0.9, 0.96),
        slip: Sequence[float] = (0.1, 0.3),
        density: float = 0.1,
        size: float = 1.0,
    ) -> None:
        if not size > 0:
            raise ValueError(f"size: expected a number above 0, got {size}")
        self.graph, self.size = graph, size
        self.map = ValueIteration(draw.size(graph, nodes))
        self.gamma = draw.limits("gamma", gamma, closed=False)
        self.slip = draw.limits("slip", slip, closed=True)
        self.density = draw.share("density", density)

    def sample(self, batch: int, *, generator: torch.Generator) -> ValueProblem:
        """A batch with rewards, discount and slip of its own for each instance, float64."""
        n = self.map.signature.size
        return ValueProblem(
            adjacency=draw.weights(self.graph, n, batch, generator) != 0,
            reward=self.size * draw.sparse(batch, n, self.density, generator),
            gamma=draw.uniform(batch, self.gamma, generator),
            slip=draw.uniform(batch, self.slip, generator),
        )

    def reference(self, problem: ValueProblem) -> Tensor:
        """By policy iteration."""
        return optimal_values(problem)
