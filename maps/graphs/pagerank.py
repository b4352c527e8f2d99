"""PageRank (Page, Brin, Motwani & Winograd 1999) by the power iteration.

It contracts by the damping in the 1-norm but need not be nonexpansive in the Euclidean norm, so no trait is declared.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fixedpoint import Assessment, Context, Evaluation, FixedPointMap, Signature
from maps.graphs.parts import batch_size, graph_of, running, solve, through


class PageRankProblem(NamedTuple):
    """One graph to rank, or a batch of them."""

    adjacency: Tensor
    """(n, n) shared by the batch, or (B, n, n): weight >= 0 of the edge from row to column, 0 for no edge."""
    personalisation: Tensor
    """(n,) or (B, n), >= 0: where a bored surfer, and one at a dead end, goes on. Any positive sum."""
    damping: Tensor
    """() or (B,) probability of following an edge, in [0, 1)."""


class _Links(NamedTuple):
    transition: Tensor
    """(n, n) or (B, n, n) P: rows sum to 1, or are 0 for dangling nodes."""
    dangling: Tensor
    """(n,) or (B, n): 1 for nodes without outgoing weight, else 0."""


class _PageRankRows(NamedTuple):
    links: _Links | None
    target: Tensor
    """(B, n) v, the personalisation with sum 1."""
    damping: Tensor


class PageRank(FixedPointMap[PageRankProblem, Context]):
    """f(x) = d (P'x + (mass on dangling nodes) v) + (1 - d) v: the power iteration of networkx, step by step.

    The residual is ||f(x) - x||_1, networkx's own measure (its `tol` is this divided by n); the error of x is at most
    1/(1 - d) times as large. Started at 1/n, as networkx does. Whether a node dangles is a jump, so the weights of a
    dangling node's own row have the derivative 0.

    Args:
        nodes: n.
    """

    ranks: ClassVar = {"adjacency": 2, "personalisation": 1, "damping": 0}

    def __init__(self, nodes: int = 77) -> None:
        self.signature = Signature(size=nodes, features=3 * nodes + 1, coordinates={"map": "pagerank"})

    def faults(self, problem: PageRankProblem) -> dict[str, Tensor]:
        """Negative weights, a damping outside [0, 1), a personalisation that cannot be normalised."""
        weights, target, damping = problem
        found = {
            "adjacency: expected weights >= 0": (weights < 0).flatten(-2).any(-1),
            "personalisation: expected entries >= 0": (target < 0).any(-1),
            "personalisation: expected a positive sum": ~(target.sum(-1) > 0),
            "damping: expected a number in [0, 1)": (damping < 0) | (damping >= 1),
        }
        batch = batch_size(problem, self.ranks, self.signature.size)
        return {message: bad.expand(batch) for message, bad in found.items()}

    def setup(self, problem: PageRankProblem) -> Context:
        """Normalise: rows of the adjacency and the personalisation sum to 1.

        Raises:
            ValueError: shapes that do not fit.
        """
        n = self.signature.size
        batch = batch_size(problem, self.ranks, n)
        weights, target, damping = problem
        total = weights.sum(-1, keepdim=True)
        linked = total > 0
        transition = torch.where(linked, weights / torch.where(linked, total, 1.0), 0.0)
        links = _Links(transition, (~linked)[..., 0].to(weights.dtype))
        target = (target / target.sum(-1, keepdim=True)).expand(batch, n)
        shared = weights.ndim == 2
        return Context(
            rows=_PageRankRows(None if shared else links, target, damping.expand(batch)),
            shared=links if shared else None,
            problem=problem,
        )

    def featurize(self, context: Context) -> Tensor:
        """(B, 3n + 1): v, d, P'1 (how much a node is linked to) and P'v."""
        rows = context.rows
        transition = graph_of(context, rows.links).transition
        linked = transition.sum(-2).expand_as(rows.target)
        return torch.cat([rows.target, rows.damping[:, None], linked, through(rows.target, transition)], dim=1)

    def initial(self, context: Context) -> Tensor:
        """Uniform, 1/n."""
        return torch.full_like(context.rows.target, 1 / self.signature.size)

    def retract(self, x: Tensor, context: Context) -> Tensor:
        """The point shifted to the sum 1 of the fixed point: f forgets a wrong sum only at the rate d."""
        return x + (1 - x.sum(1, keepdim=True)) / self.signature.size

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """One step of the power iteration."""
        rows = context.rows
        links = graph_of(context, rows.links)
        damping = rows.damping[:, None]
        lost = (x * links.dangling).sum(1, keepdim=True)
        return damping * through(x, links.transition) + (damping * lost + 1 - damping) * rows.target

    def assess(self, evaluation: Evaluation, aux: Any, context: Context) -> Assessment:
        """||f(x) - x||_1."""
        return running(evaluation.residual.abs().sum(1))


def pagerank_values(problem: PageRankProblem) -> Tensor:
    """(B, n), or (n,) for a single problem, the PageRank by a linear solve: (I - d S') x = (1 - d) v.

    S is P with the rows of dangling nodes replaced by v.
    """
    weights, target, damping = problem
    target = target / target.sum(-1, keepdim=True)
    total = weights.sum(-1, keepdim=True)
    stochastic = torch.where(total > 0, weights / torch.where(total > 0, total, 1.0), target[..., None, :])
    d = damping[..., None]
    matrix = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device) - d[..., None] * stochastic.mT
    return solve(matrix, (1 - d) * target)
