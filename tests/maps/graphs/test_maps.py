"""PageRank against networkx, value iteration against all policies and linear solves."""

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
from fixedpoint.checks import check_map
from fixedpoint.tensors import pytrees
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
from maps.graphs.families.pagerank import GraphRanks
from maps.graphs.families.value_iteration import GraphValues
from tests.maps.graphs.problems import RANKED, decisions, networkx_ranks, transitions, web


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
    batch = pytrees.batched(problem, PageRank.ranks)
    v, d, linked, reached = PageRank(6).featurize(PageRank(6).setup(batch))[0].split([6, 1, 6, 6])
    P = batch.adjacency[0] / batch.adjacency[0].sum(1, keepdim=True)
    P = P.nan_to_num(0.0)
    assert list(web()) == ["a", "b", "c", "e", "d", "f"]
    assert v.tolist() == [0, 0, 0.25, 0, 0.75, 0]
    assert float(d) == 0.85
    assert torch.allclose(linked, P.sum(0))
    assert torch.allclose(reached, v @ P)
    moves = pytrees.batched(value_problem(nx.path_graph(3), {0: 1.0, 2: 3.0}, 0.5, 0.25), ValueIteration.ranks)
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
