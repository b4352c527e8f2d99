"""Discounted value iteration (Bellman 1957) on a graph, and the solvers that check it.

It contracts by gamma in the infinity norm but need not be nonexpansive in the Euclidean norm, so no trait is declared.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fixedpoint import Assessment, Context, Evaluation, FixedPointMap, Signature
from maps.graphs.parts import batch_size, graph_of, running, solve, through


class ValueProblem(NamedTuple):
    """One Markov decision process on a graph, or a batch of them."""

    adjacency: Tensor
    """(n, n) shared by the batch, or (B, n, n); bool or integer, non-zero where one may go from row to column."""
    reward: Tensor
    """(n,) or (B, n) R(s), for being at a node."""
    gamma: Tensor
    """() or (B,) discount factor, in [0, 1)."""
    slip: Tensor
    """() or (B,) probability of ending at a random neighbour instead of the chosen one, in [0, 1]."""


class _Moves(NamedTuple):
    edges: Tensor
    """(n, n) or (B, n, n) bool; every row has at least one True."""
    average: Tensor
    """Of that shape: W, each row spread evenly over the node's neighbours."""


class _ValueRows(NamedTuple):
    moves: _Moves | None
    reward: Tensor
    gamma: Tensor
    slip: Tensor


class ValueIteration(FixedPointMap[ValueProblem, Context]):
    """f(V)(s) = R(s) + gamma ((1 - slip) max_t V(t) + slip mean_u V(u)), t and u over the neighbours of s.

    A node without neighbours stays where it is. The residual is ||f(V) - V||_inf / (1 - gamma), which bounds the error
    ||V - V*||_inf from above, in units of the reward. Started at 0.

    Args:
        nodes: n.
    """

    ranks: ClassVar = {"adjacency": 2, "reward": 1, "gamma": 0, "slip": 0}

    def __init__(self, nodes: int = 77) -> None:
        self.signature = Signature(size=nodes, features=2 * nodes + 2, coordinates={"map": "value-iteration"})

    def faults(self, problem: ValueProblem) -> dict[str, Tensor]:
        """A gamma or slip outside its range."""
        gamma, slip = problem.gamma, problem.slip
        batch = batch_size(problem, self.ranks, self.signature.size)
        return {
            "gamma: expected a number in [0, 1)": ((gamma < 0) | (gamma >= 1)).expand(batch),
            "slip: expected a number in [0, 1]": ((slip < 0) | (slip > 1)).expand(batch),
        }

    def setup(self, problem: ValueProblem) -> Context:
        """The moves of each node.

        Raises:
            ValueError: shapes that do not fit, or an adjacency of floating-point numbers (its gradient would silently
                be zero: edges are there or not).
        """
        n = self.signature.size
        batch = batch_size(problem, self.ranks, n)
        moves = _moves(problem)
        shared = problem.adjacency.ndim == 2
        rows = _ValueRows(
            None if shared else moves,
            problem.reward.expand(batch, n),
            problem.gamma.expand(batch),
            problem.slip.expand(batch),
        )
        return Context(rows=rows, shared=moves if shared else None, problem=problem)

    def featurize(self, context: Context) -> Tensor:
        """(B, 2n + 2): R, gamma, slip and W R (the mean reward of the neighbours)."""
        _, reward, gamma, slip = context.rows
        average = graph_of(context, context.rows.moves).average
        return torch.cat([reward, gamma[:, None], slip[:, None], through(reward, average.mT)], dim=1)

    def initial(self, context: Context) -> Tensor:
        """Zero."""
        return torch.zeros_like(context.rows.reward)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """One Bellman update of every node."""
        _, reward, gamma, slip = context.rows
        moves = graph_of(context, context.rows.moves)
        best = torch.where(moves.edges, x[:, None], -torch.inf).amax(2)
        mean = through(x, moves.average.mT)
        return reward + gamma[:, None] * ((1 - slip)[:, None] * best + slip[:, None] * mean)

    def assess(self, evaluation: Evaluation, aux: Any, context: Context) -> Assessment:
        """||f(V) - V||_inf / (1 - gamma)."""
        return running(evaluation.residual.abs().amax(1) / (1 - context.rows.gamma))


def greedy_policy(problem: ValueProblem, values: Tensor) -> Tensor:
    """The neighbour of largest value for each node, the first of equals; int64 of the shape of `values`.

    Args:
        problem: a single problem or a batch.
        values: (n,) or (B, n) V.

    Raises:
        ValueError: an adjacency of floating-point numbers.
    """
    return torch.where(_moves(problem).edges, values[..., None, :], -torch.inf).argmax(-1)


def policy_value(problem: ValueProblem, policy: Tensor) -> Tensor:
    """The values of always choosing `policy`, by a linear solve: (I - gamma ((1 - slip) Pi + slip W)) V = R.

    Args:
        problem: a single problem or a batch.
        policy: (n,) or (B, n) int64, for each node the node it chooses.

    Returns:
        (n,) or (B, n), in the units of the reward.

    Raises:
        ValueError: a choice that is no neighbour (nor the node itself, where it has none); an adjacency of
            floating-point numbers.
    """
    edges, average = _moves(problem)
    n = average.shape[-1]
    if bool(((policy < 0) | (policy >= n)).any()):
        raise ValueError(f"policy: expected nodes from 0 to {n - 1}, got {int(policy.min())} to {int(policy.max())}")
    chosen = torch.nn.functional.one_hot(policy, n)
    if bool(((chosen != 0) & ~edges).any()):
        raise ValueError("policy: expected a neighbour of each node (itself where it has none)")
    gamma, slip = problem.gamma[..., None, None], problem.slip[..., None, None]
    transition = (1 - slip) * chosen + slip * average
    identity = torch.eye(n, dtype=average.dtype, device=average.device)
    return solve(identity - gamma * transition, problem.reward)


def optimal_values(problem: ValueProblem) -> Tensor:
    """(B, n), or (n,) for a single problem, the fixed point of value iteration by policy iteration (Howard 1960).

    Raises:
        ValueError: an adjacency of floating-point numbers.
    """
    gamma = problem.gamma[..., None]
    shape = torch.broadcast_shapes(
        problem.adjacency.shape[:-1], problem.reward.shape, gamma.shape, problem.slip[..., None].shape
    )
    policy = greedy_policy(problem, problem.reward.expand(shape))
    while True:
        values = policy_value(problem, policy)
        better = greedy_policy(problem, values)
        gain = values.gather(-1, better) - values.gather(-1, policy)
        # a policy changes only where that gains more than the solve's rounding errors: it cannot go round in circles
        rounding = torch.finfo(values.dtype).eps * values.abs().amax(-1, keepdim=True) / (1 - gamma)
        improved = gain > 64 * rounding
        if not bool(improved.any()):
            return values
        policy = torch.where(improved, better, policy)


def _moves(problem: ValueProblem) -> _Moves:
    """The edges, with a loop at each node that has none, and their average.

    Raises:
        ValueError: an adjacency of floating-point numbers.
    """
    adjacency = problem.adjacency
    if adjacency.is_floating_point():
        raise ValueError(f"adjacency: expected bool or integers (such as adjacency != 0), got {adjacency.dtype}")
    edges = adjacency != 0
    alone = ~edges.any(-1, keepdim=True)
    edges = edges | (alone & torch.eye(edges.shape[-1], dtype=torch.bool, device=edges.device))
    average = edges.to(problem.reward.dtype)
    return _Moves(edges, average / average.sum(-1, keepdim=True))
