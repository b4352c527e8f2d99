"""The families of both graph maps."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch

import fixedpoint as fp
from fixedpoint.checks import check_map
from fixedpoint.checks.compare import global_state
from maps.graphs.families.draw import weights
from maps.graphs.families.pagerank import GraphRanks
from maps.graphs.families.value_iteration import GraphValues

FAMILIES = [GraphRanks, GraphValues]
GRAPHS = ["random", "les-miserables", "karate"]
SHIFTS = [(kind, name) for kind in FAMILIES for name in kind.shifts]


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_families(kind: type[fp.ProblemFamily], graph: str) -> None:
    """The laws of the map on this graph; drawn with the generator alone; solved, and in as many steps as intended."""
    family = kind(graph=graph)
    before = global_state()
    problem, again, other = (family.sample(6, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert global_state() == before
    assert all(torch.equal(one, two) for one, two in zip(problem, again, strict=True))
    assert not torch.equal(problem[1], other[1])
    assert all(t.dtype in (torch.float64, torch.bool) for t in problem)
    reference = family.reference(problem)
    report = check_map(family.map, problem, reference=reference)
    assert {result.name for result in report.skipped} == {"traits"}, str(report)

    solution = fp.solve(family.map, problem, tolerance=1e-6)
    assert solution.converged.all()
    assert int(solution.evaluations.min()) >= 40
    assert int(solution.evaluations.max()) <= 500
    exact = fp.solve(family.map, problem, "anderson-2", tolerance=1e-12)
    assert exact.converged.all()
    assert torch.allclose(exact.output, reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "name"), SHIFTS)
def test_shifts_keep_the_map(kind: type[fp.ProblemFamily], name: str) -> None:
    family, shifted = kind(), kind(**kind.shifts[name])
    assert family.map.signature.hash == shifted.map.signature.hash
    one, two = (f.sample(16, generator=torch.Generator().manual_seed(0)) for f in (family, shifted))
    assert any(not torch.equal(a, b) for a, b in zip(one, two, strict=True))
    features = [f.map.featurize(f.map.setup(p)) for f, p in ((family, one), (shifted, two))]
    assert features[0].shape == features[1].shape == (16, family.map.signature.features)


def test_what_shifts_do() -> None:
    def mean(kind: type[Any], field: str, **options: Any) -> float:
        problem = kind(**options).sample(64, generator=torch.Generator().manual_seed(0))
        return float(getattr(problem, field).double().mean())

    def density(kind: type[Any], field: str, **options: Any) -> float:
        problem = kind(**options).sample(64, generator=torch.Generator().manual_seed(0))
        return float((getattr(problem, field) != 0).double().mean())

    for kind, field, name in ((GraphRanks, "personalisation", "personalisation"), (GraphValues, "reward", "sparsity")):
        assert density(kind, field) == pytest.approx(0.1, abs=0.01)
        assert density(kind, field, **kind.shifts[name]) == pytest.approx(0.2, abs=0.02)
    assert mean(GraphValues, "reward", **GraphValues.shifts["size"]) == pytest.approx(2 * mean(GraphValues, "reward"))
    for kind, field, name in (
        (GraphRanks, "damping", "damping"),
        (GraphValues, "gamma", "gamma"),
        (GraphValues, "slip", "noise"),
    ):
        low, high = kind.shifts[name][field]
        assert low < mean(kind, field, **kind.shifts[name]) < high
        assert mean(kind, field) < low


def test_random_graphs_are_connected_and_various() -> None:
    found = weights("random", 20, 90, torch.Generator().manual_seed(0))
    assert torch.equal(found, found.mT)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert not found.diagonal(dim1=1, dim2=2).any()
    assert all(nx.is_connected(nx.from_numpy_array(one.numpy())) for one in found)
    assert len({one.numpy().tobytes() for one in found}) == 90
    degrees = found.sum(2)
    assert int((degrees.sum(1) == 38).sum()) > 5, "trees"
    assert int((degrees.sum(1) == 80).sum()) > 20, "small worlds"
    assert bool(((degrees.mean(0) / degrees.mean() - 1).abs() < 0.35).all()), "a position says nothing of a degree"


@pytest.mark.parametrize(("graph", "spread"), [("random", 1.0), ("les-miserables", 0.3), ("karate", 0.3)])
def test_weights_vary_by_edge_and_instance(graph: str, spread: float) -> None:
    found = GraphRanks(graph=graph).sample(16, generator=torch.Generator().manual_seed(0)).adjacency
    assert torch.equal(found, found.mT), "undirected"
    base = (found != 0).double()
    if graph != "random":
        real = nx.les_miserables_graph() if graph == "les-miserables" else nx.karate_club_graph()
        base = torch.as_tensor(nx.to_numpy_array(real)).expand_as(found)
    assert torch.equal(found != 0, base != 0)
    noise = torch.log(found[found != 0] / base[found != 0])
    assert float(noise.mean()) == pytest.approx(0, abs=0.1 * spread)
    assert float(noise.std()) == pytest.approx(spread, rel=0.1)
