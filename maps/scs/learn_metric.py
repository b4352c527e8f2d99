"""The metric of the inequalities and the relaxation, learned by gradient through the linear solve.

Where the map eliminates (`eliminated`), R has a number for each inequality. One factorization, for R0, serves every R:
with E the unit vectors of the inequalities and M = -E' K(R0)^{-1} E, Woodbury's identity gives

    K(R)^{-1} E = K(R0)^{-1} E (I + (R - R0) M)^{-1}

so that all that a step needs of the system is one small dense solve away, and differentiable in R. What is learned is
a setting of the map (`weights`, `alpha`): it keeps every guarantee of the iteration, and costs nothing in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fixedpoint import Context, Evaluation, ProblemFamily
from fixedpoint.context import select_rows
from fixedpoint.experiments.evaluation import generator
from fixedpoint.tensors import pytrees
from maps.cones import ProductCone
from maps.scs.iteration.map import SCS

FLOOR = 1e-5
"""Merits below it count as it: the metric of the last decades is that of the first."""
SHRINK = 0.02
"""What is left of the learning rate at the end."""


class Metric(NamedTuple):
    """Settings of `SCS`."""

    weights: list[float]
    """Of the inequalities, to 3 digits."""
    alpha: float


def learn(
    family: ProblemFamily,
    *,
    instances: int = 512,
    steps: int = 24,
    updates: int = 100,
    batch: int = 24,
    learning_rate: float = 0.05,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> Metric:
    """Learn weights and relaxation that make the plain iteration short, from those of the family's map.

    Minimises the mean of log10 of the family's merit over the second half of `steps` evaluations (Adam, cosine).

    Args:
        family: its map is an `SCS` with eliminate=True whose batches share A and P.
        instances: training instances, split "train" of `seed`.
        steps: evaluations, about as many as shall be needed.
        updates, batch, learning_rate: of the training.
        report: called with (updates so far, loss) after each.

    Raises:
        TypeError: the family's map is no `SCS`; ValueError: it does not eliminate, its batches share no matrix, or a
            number is below 1.
    """
    for name, value in (("instances", instances), ("steps", steps), ("updates", updates), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")
    map = family.map
    if not isinstance(map, SCS):
        raise TypeError(f"family: expected one whose map is an SCS, got {type(map).__name__}")
    if not map.eliminates:
        raise ValueError("family: expected eliminate=True and inequalities, whose metric is what is learned here")
    rng = generator(seed, "train")
    problem = family.sample(instances, generator=rng)
    with torch.no_grad():
        context = map.setup(problem)
    if context.shared.response is None:
        raise ValueError('family: expected batches that share A and P (and normalize="shared" or False)')
    start = context.shared.R[map.absent : -1]
    block = _blocks(map.step.cone)
    theta = torch.zeros(int(block.max()) + 1, dtype=start.dtype, device=start.device, requires_grad=True)
    logit = torch.tensor(
        math.log(map.settings.alpha / (2 - map.settings.alpha)),
        dtype=start.dtype,
        device=start.device,
        requires_grad=True,
    )
    optimizer = torch.optim.Adam([theta, logit], lr=learning_rate)
    plain = copy(map)
    plain.step = copy(map.step)
    plain.step.alpha = 1.0  # the relaxation is taken outside, where it is a tensor
    for update in range(updates):
        cosine = 0.5 * (1 + math.cos(math.pi * update / updates))
        optimizer.param_groups[0]["lr"] = learning_rate * (SHRINK + (1 - SHRINK) * cosine)
        index = torch.randint(instances, (min(batch, instances),), generator=rng)
        some, here = pytrees.take_rows(problem, map.ranks, index), select_rows(context, index)
        here = reweighted(map, here, start * theta.exp()[block])
        loss = _loss(family, plain, some, here, 2 * torch.sigmoid(logit), steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([theta, logit], 1.0)
        optimizer.step()
        if report is not None:
            report(update + 1, float(loss.detach()))
    with torch.no_grad():
        weights = map.settings.scale * start * theta.exp()[block]
        return Metric([float(f"{w:.3g}") for w in weights.tolist()], round(float(2 * torch.sigmoid(logit)), 4))


def reweighted(map: SCS, context: Context, R: Tensor) -> Context:
    """A context that shares its matrices with another R (k,) on the inequalities, differentiable in it."""
    rows, shared, first = context.rows, context.shared, map.absent
    R0 = shared.R[first:-1]
    known = torch.cat([shared.response.free, shared.response.kept], 1).mT / -R0  # K(R0)^{-1} E, (n + m, k)
    change = R - R0
    one = torch.eye(len(R), dtype=R.dtype, device=R.device)
    columns = known @ torch.linalg.inv(one - change[:, None] * known[first:])
    g = rows.g + (change * rows.g[:, first:]) @ columns.mT
    weighted = R * g[:, first:]
    curvature = shared.R[-1:] + (weighted * g[:, first:]).sum(1, keepdim=True)
    answers = -R[:, None] * columns.mT
    response = shared.response._replace(kept=answers[:, first:], free=answers[:, :first], read=None, seen=None)
    whole = torch.cat([shared.R[:first], R, shared.R[-1:]])
    return context._replace(
        rows=rows._replace(g=g, weighted=weighted, curvature=curvature),
        shared=shared._replace(R=whole, response=response, system=None),
    )


def _loss(family: ProblemFamily, map: SCS, problem: Any, context: Context, alpha: Tensor, steps: int) -> Tensor:
    """Mean log10 merit of the second half of the evaluations."""
    x, origin = map.initial(context), map.cold_state(context)
    x, merits = origin + alpha * (x - origin), []
    for step in range(steps):
        x = map.retract(x, context)
        fx, aux = map.evaluate(x, context)
        if step >= steps // 2:
            output = map.output(Evaluation(x, fx, fx - x), aux, context)
            merits.append(family.merit(problem, output, torch.zeros_like(x[:, 0])))
        x = x + alpha * (fx - x)
    return torch.log10(torch.stack(merits) + FLOOR).mean()


def _blocks(cone: ProductCone) -> Tensor:
    """(k,) int64 which rows have one weight together: those of a block that is not separable."""
    mark = torch.arange(cone.dim, dtype=torch.float64, device="cpu")[None] + 1
    return torch.unique(cone.share_within_blocks(mark, "max", box=True)[0], return_inverse=True)[1]
