"""What is no graph problem is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fixedpoint as fp
from maps.graphs import (
    PageRank,
    ValueIteration,
    greedy_policy,
    optimal_values,
    pagerank_problem,
    value_problem,
)
from maps.graphs.families.pagerank import GraphRanks
from maps.graphs.families.value_iteration import GraphValues
from tests.maps.graphs.problems import web

FAMILIES = [GraphRanks, GraphValues]
FAULTS: list[tuple[type[Any], str, float, str]] = [
    (GraphRanks, "adjacency", -1.0, "adjacency: expected weights >= 0"),
    (GraphRanks, "personalisation", -1.0, "personalisation: expected entries >= 0"),
    (GraphRanks, "personalisation", 0.0, "personalisation: expected a positive sum"),
    (GraphRanks, "damping", 1.0, r"damping: expected a number in \[0, 1\)"),
    (GraphRanks, "damping", -0.1, r"damping: expected a number in \[0, 1\)"),
    (GraphValues, "gamma", 1.0, r"gamma: expected a number in \[0, 1\)"),
    (GraphValues, "gamma", -0.1, r"gamma: expected a number in \[0, 1\)"),
    (GraphValues, "slip", 1.1, r"slip: expected a number in \[0, 1\]"),
    (GraphValues, "slip", -0.1, r"slip: expected a number in \[0, 1\]"),
]


@pytest.mark.parametrize(("kind", "field", "value", "message"), FAULTS)
def test_faults(kind: type[Any], field: str, value: float, message: str) -> None:
    family = kind(nodes=12)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    leaf = getattr(problem, field).clone()
    leaf[1] = value
    with pytest.raises(ValueError, match=rf"{message} in instance\(s\) \[1\]"):
        fp.solve(family.map, problem._replace(**{field: leaf}))
    solution = fp.solve(family.map, problem._replace(**{field: leaf}), on_invalid="mark")
    assert [status.name for status in solution.statuses] == ["CONVERGED", "INVALID", "CONVERGED"]
    shared = problem._replace(**{field: leaf[1]})
    with pytest.raises(ValueError, match=rf"{message} in instance\(s\) \[0, 1, 2\]"):
        fp.solve(family.map, shared)


def test_bad_structure() -> None:
    ranks, values = pagerank_problem(web()), value_problem(web(), {})
    with pytest.raises(ValueError, match=r"adjacency: expected \(5, 5\) per instance"):
        fp.solve(PageRank(5), ranks)
    with pytest.raises(ValueError, match=r"personalisation: expected \(6,\) per instance"):
        fp.solve(PageRank(6), ranks._replace(personalisation=ranks.personalisation[:5]))
    with pytest.raises(ValueError, match=r"reward: expected \(6,\) per instance"):
        fp.solve(ValueIteration(6), values._replace(reward=values.reward[:5]))
    assert bool(values.adjacency[4, 0]), "an edge of weight 0 is an edge"
    weighted = values._replace(adjacency=values.adjacency.double())
    for refused in (
        lambda: fp.solve(ValueIteration(6), weighted),
        lambda: optimal_values(weighted),
        lambda: greedy_policy(weighted, weighted.reward),
    ):
        with pytest.raises(ValueError, match="adjacency: expected bool or integers"):
            refused()
    counted = values._replace(adjacency=2 * values.adjacency.long())
    assert torch.equal(optimal_values(counted), optimal_values(values))
    with pytest.raises(ValueError, match=r"personalization: not in the graph: \['z'\]"):
        pagerank_problem(web(), {"a": 1.0, "z": 1.0})
    with pytest.raises(ValueError, match=r"reward: not in the graph: \['z'\]"):
        value_problem(web(), {"z": 1.0})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        *((kind, {"graph": "petersen"}, "graph: expected one of") for kind in FAMILIES),
        *((kind, {"graph": "karate", "nodes": 77}, "nodes: karate has 34, got 77") for kind in FAMILIES),
        *((kind, {"nodes": 7}, "nodes: expected at least 8") for kind in FAMILIES),
        (GraphRanks, {"damping": [0.5, 1.0]}, r"damping: expected two limits in \[0, 1\)"),
        (GraphRanks, {"damping": [0.9, 0.8]}, "damping: expected two limits"),
        (GraphRanks, {"damping": [0.9]}, "damping: expected two limits"),
        (GraphRanks, {"sources": 0.0}, "sources: expected a share"),
        (GraphValues, {"gamma": [0.5, 1.0]}, r"gamma: expected two limits in \[0, 1\)"),
        (GraphValues, {"slip": [0.5, 1.1]}, r"slip: expected two limits in \[0, 1\]"),
        (GraphValues, {"density": 1.5}, "density: expected a share"),
        (GraphValues, {"size": 0.0}, "size: expected a number above 0"),
    ],
)
def test_bad_settings(kind: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)
