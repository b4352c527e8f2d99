"""PageRank against networkx, value iteration against all policies and linear solves, and the families of both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint import leaves
from fixedpoint.checks import check_map
from fixedpoint.checks.compare import global_state
from maps.graphs import (
    PageRank,
    PageRankProblem,
    ValueIteration,
    ValueProblem,
    greedy_policy,
    optimal_values,
    pagerank_problem,
    pagerank_values,
    policy_value,
    value_problem,
)
from maps.graphs.families.draw import weights
from maps.graphs.families.pagerank import GraphRanks
from maps.graphs.families.value_iteration import GraphValues

FAMILIES = [GraphRanks, GraphValues]
GRAPHS = ["random", "les-miserables", "karate"]
SHIFTS = [(kind, name) for kind in FAMILIES for name in kind.shifts]


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


@pytest.mark.parametrize("name", RANKED)
def test_pagerank_is_networkx_s(name: str) -> None:
    graph, options = RANKED[name]
    problem, expected = pagerank_problem(graph, **options), networkx_ranks(graph, options)
    solution = fp.solve(PageRank(len(graph)), problem, tolerance=1e-14, max_evaluations=3000)
    assert bool(solution.converged)
    for found in (solution.output, pagerank_values(problem)):
        assert torch.allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", RANKED)
def test_an_evaluation_is_an_iteration_of_networkx(name: str) -> None:
    graph, options = RANKED[name]
    problem = pagerank_problem(graph, **options)
    path = fp.unroll(PageRank(len(graph)), problem, None, steps=3)
    for x, fx in zip(path.x[:, 0], path.fx[:, 0], strict=True):
        expected = networkx_ranks(graph, options, nstart=dict(zip(graph, x.tolist(), strict=True)), tol=math.inf)
        assert torch.allclose(fx, expected, rtol=0, atol=1e-15)
    expected = networkx_ranks(graph, options, tol=math.inf)
    assert torch.allclose(path.fx[0, 0], expected, rtol=0, atol=1e-15), "the start is networkx's"


def test_several_graphs_are_a_batch() -> None:
    graphs = [nx.path_graph(5), nx.star_graph(4), nx.DiGraph(nx.cycle_graph(5))]
    together = pagerank_problem(graphs, {0: 1.0})
    assert together.adjacency.shape == (3, 5, 5)
    ranks = fp.solve(PageRank(5), together, "anderson-2", tolerance=1e-13).output
    for i, graph in enumerate(graphs):
        assert torch.allclose(ranks[i], networkx_ranks(graph, {"personalization": {0: 1.0}}), atol=1e-10)
    moves = value_problem(graphs, {0: 1.0}, gamma=0.5)
    assert torch.equal(moves.adjacency, together.adjacency != 0)
    with pytest.raises(ValueError, match=r"graph: expected one number of nodes, got \[5, 6\]"):
        pagerank_problem([nx.path_graph(5), nx.path_graph(6)])


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


def test_value_iteration_is_the_best_of_all_policies() -> None:
    problem = decisions()
    n = problem.adjacency.shape[0]
    choices = [np.flatnonzero(row) if row.any() else np.array([s]) for s, row in enumerate(problem.adjacency.numpy())]
    best = np.full((2, n), -np.inf)
    for policy in itertools.product(*choices):
        found = policy_value(problem, torch.tensor(policy).expand(2, n)).numpy()
        for row in range(2):
            P = transitions(problem, policy, row)
            expected = np.linalg.solve(np.eye(n) - float(problem.gamma[row]) * P, problem.reward.numpy())
            assert np.allclose(found[row], expected, rtol=0, atol=1e-13)
        best = np.maximum(best, found)
    solution = fp.solve(ValueIteration(n), problem, tolerance=1e-12)
    assert solution.converged.all()
    assert np.allclose(solution.output, best, rtol=0, atol=1e-11)
    assert np.allclose(optimal_values(problem), best, rtol=0, atol=1e-13)
    assert torch.allclose(policy_value(problem, greedy_policy(problem, solution.output)), solution.output, atol=1e-11)


def test_solvers_take_single_problems() -> None:
    batch = decisions()
    for row in range(2):
        one = batch._replace(gamma=batch.gamma[row], slip=batch.slip[row])
        values = optimal_values(one)
        assert torch.allclose(values, optimal_values(batch)[row], rtol=0, atol=1e-14)
        policy = greedy_policy(one, values)
        assert policy.shape == (6,)
        assert torch.allclose(policy_value(one, policy), values, rtol=0, atol=1e-14)


def test_a_policy_follows_edges() -> None:
    problem = decisions()
    good = greedy_policy(problem, torch.zeros(2, 6, dtype=torch.float64))
    for node, chosen, message in ((0, 3, "a neighbour"), (0, 0, "a neighbour"), (0, 6, "nodes from 0 to 5")):
        policy = good.clone()
        policy[1, node] = chosen
        with pytest.raises(ValueError, match=f"policy: expected {message}"):
            policy_value(problem, policy)


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


def test_shared_graphs() -> None:
    ranks = GraphRanks().sample(3, generator=torch.Generator().manual_seed(0))
    values = GraphValues().sample(3, generator=torch.Generator().manual_seed(0))
    cases: list[tuple[Any, Any, Callable[[Any], Tensor]]] = [
        (PageRank(), ranks, pagerank_values),
        (ValueIteration(), values, optimal_values),
    ]
    for map, problem, reference in cases:
        shared = problem._replace(adjacency=problem.adjacency[0])
        rows = problem._replace(adjacency=problem.adjacency[:1].expand(3, -1, -1))
        assert torch.allclose(reference(shared), reference(rows), rtol=1e-13)
        one, two = (fp.unroll(map, p, None, steps=9).fx for p in (shared, rows))
        assert torch.allclose(one, two, rtol=1e-12)
        one, two = (map.featurize(map.setup(p)) for p in (shared, rows))
        assert torch.allclose(one, two, rtol=1e-12)
        check_map(map, shared, reference=reference(shared))
        few = problem._replace(**{name: leaf[0] for name, leaf in problem._asdict().items() if name != "adjacency"})
        alone = fp.solve(map, few, tolerance=1e-10).output  # a graph of its own for each, all else shared
        assert torch.allclose(alone, reference(few), atol=1e-9)


def test_features() -> None:
    problem = pagerank_problem(web(), {"c": 2, "d": 6})
    batch = leaves.batched(problem, PageRank.ranks)
    v, d, linked, reached = PageRank(6).featurize(PageRank(6).setup(batch))[0].split([6, 1, 6, 6])
    P = batch.adjacency[0] / batch.adjacency[0].sum(1, keepdim=True)
    P = P.nan_to_num(0.0)
    assert list(web()) == ["a", "b", "c", "e", "d", "f"]
    assert v.tolist() == [0, 0, 0.25, 0, 0.75, 0]
    assert float(d) == 0.85
    assert torch.allclose(linked, P.sum(0))
    assert torch.allclose(reached, v @ P)
    moves = leaves.batched(value_problem(nx.path_graph(3), {0: 1.0, 2: 3.0}, 0.5, 0.25), ValueIteration.ranks)
    features = ValueIteration(3).featurize(ValueIteration(3).setup(moves))
    assert features.tolist() == [[1, 0, 3, 0.5, 0.25, 0, 2, 0]]


def test_residuals_bound_the_error() -> None:
    ranks, values = GraphRanks(nodes=20), GraphValues(nodes=20)
    problem = ranks.sample(8, generator=torch.Generator().manual_seed(0))
    path = fp.unroll(ranks.map, problem, None, steps=60)
    assert torch.allclose(path.residual, (path.fx - path.x).abs().sum(2), rtol=1e-14)
    assert bool(
        ((path.x - pagerank_values(problem)).abs().sum(2) * (1 - problem.damping) <= path.residual + 1e-14).all()
    )
    decision = values.sample(8, generator=torch.Generator().manual_seed(0))
    path = fp.unroll(values.map, decision, None, steps=60)
    error = (path.x - optimal_values(decision)).abs().amax(2)
    assert bool((error <= path.residual + 1e-12).all())
    assert float((path.residual[-1] / error[-1]).max()) < 2.5, "the bound is not idle"


def differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function, entry by entry."""
    units = step * torch.eye(at.numel(), dtype=at.dtype).reshape(-1, *at.shape)
    return torch.stack([(function(at + e) - function(at - e)) / (2 * step) for e in units]).reshape(at.shape)


def test_gradients_of_pagerank() -> None:
    problem = pagerank_problem(web(), {"c": 2, "d": 5, "a": 1})
    cotangent = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 2.0], dtype=torch.float64)

    def loss(*parts: Tensor) -> Tensor:
        options: Any = {"tolerance": 1e-14, "gradient": "implicit"}
        return (fp.solve(PageRank(6), PageRankProblem(*parts), "anderson-2", **options).output * cotangent).sum()

    gradients = torch.func.grad(loss, argnums=(0, 1, 2))(*problem)
    dangling = problem.adjacency.sum(1) == 0
    assert dangling.tolist() == [False, False, False, True, True, False]
    assert not gradients[0][dangling].any(), "a jump has no derivative"
    for i, name in enumerate(problem._fields):

        def exact(leaf: Tensor, name: str = name) -> Tensor:
            return (pagerank_values(problem._replace(**{name: leaf})) * cotangent).sum()

        expected = differences(exact, problem[i])
        if name == "adjacency":
            expected = torch.where(dangling[:, None], 0.0, expected)
        assert float(expected.abs().max()) > 1e-2
        assert torch.allclose(gradients[i], expected, rtol=1e-6, atol=1e-8), name


@pytest.mark.parametrize("mode", ["implicit", "unroll"])
def test_gradients_of_value_iteration(mode: Any) -> None:
    family = GraphValues(nodes=9, gamma=[0.6, 0.8])
    problem = family.sample(3, generator=torch.Generator().manual_seed(1))
    cotangent = torch.linspace(-1, 2, 9, dtype=torch.float64)

    def loss(adjacency: Tensor, *parts: Tensor) -> Tensor:
        options: Any = {"tolerance": 1e-13, "max_evaluations": 200, "gradient": mode}
        return (fp.solve(family.map, ValueProblem(adjacency, *parts), **options).output * cotangent).sum()

    mapped = torch.func.vmap(torch.func.grad(loss, argnums=(1, 2, 3)))(*problem)
    for row in range(3):
        one = ValueProblem(*(leaf[row] for leaf in problem))
        policy = greedy_policy(one, optimal_values(one))
        for name, gradient in zip(("reward", "gamma", "slip"), mapped, strict=True):

            def exact(leaf: Tensor, name: str = name, one: ValueProblem = one, policy: Tensor = policy) -> Tensor:
                # the optimal policy is kept: to first order that changes nothing (Danskin), and no kink is in the way
                return (policy_value(one._replace(**{name: leaf}), policy) * cotangent).sum()

            expected = differences(exact, getattr(one, name))
            assert float(expected.abs().max()) > 1e-2
            assert torch.allclose(gradient[row], expected, rtol=1e-6, atol=1e-7), name


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
