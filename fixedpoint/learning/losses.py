"""How bad each step of an unrolled iteration is: (T, B), the smaller the better.

No loss but "raw-residual" can be lowered by changing a homogeneous scale: residuals and distances are of
`FixedPointMap.dehomogenized` points, errors are the family's own. An instance that loses its scale (tau vanishes: these
are infinite) counts as `LOST`, with no gradient and so no reward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fixedpoint.experiments.evaluation import finite_norm, normalized_residual
from fixedpoint.protocol import ProblemFamily
from fixedpoint.solution import Trajectory
from fixedpoint.tensors import pytrees

LOST = 1e3
"""What counts for an infinite residual or error."""


class Scene(NamedTuple):
    """What a trajectory is judged against."""

    family: ProblemFamily
    problem: Any
    context: Any
    solutions: Tensor | None
    """(B, n) for losses that say so in `NEEDS_SOLUTIONS`."""
    floor: float
    """Logarithmic losses count what is smaller as this."""


def residual(path: Trajectory, scene: Scene) -> Tensor:
    """The normalised residual: for SCS the loss of the neural-acceleration paper, || f(v)/tau_f - v/tau_v ||."""
    return torch.stack(
        [
            _found(normalized_residual(scene.family.map, x, fx, scene.context))
            for x, fx in zip(path.x, path.fx, strict=True)
        ]
    )


def log_residual(path: Trajectory, scene: Scene) -> Tensor:
    """log10 of the normalised residual, floored."""
    return torch.log10(residual(path, scene) + scene.floor)


def solution(path: Trajectory, scene: Scene) -> Tensor:
    """Distance of the normalised point to the normalised solution, relative to its length."""
    assert scene.solutions is not None
    goal = scene.family.map.dehomogenized(scene.solutions, scene.context)
    size = torch.linalg.vector_norm(goal, dim=1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    distances = [finite_norm(scene.family.map.dehomogenized(x, scene.context) - goal) / size for x in path.x]
    return torch.stack([_found(d) for d in distances])


def log_error(path: Trajectory, scene: Scene) -> Tensor:
    """log10 of the family's merit (a smooth stand-in of its error), floored."""
    merits = [
        scene.family.merit(scene.problem, pytrees.transform(lambda t, k=k: t[k], path.output), path.residual[k])
        for k in range(path.x.shape[0])
    ]
    return torch.log10(torch.stack([_found(m) for m in merits]) + scene.floor)


def log_both(path: Trajectory, scene: Scene) -> Tensor:
    """Mean of `log_residual` and `log_error`: either alone has bad minima that the other one sees.

    The residual is also small where tau outgrows everything else, and the error is 1 there; a smallish error is also
    had where tau vanishes, and the residual is infinite there.
    """
    return (log_residual(path, scene) + log_error(path, scene)) / 2


def raw_residual(path: Trajectory, scene: Scene) -> Tensor:
    """|| f(v) - v ||_2 as it is, without tau-normalisation: not a loss to train with, but one to compare with.

    It scales with v, and it is small wherever v hardly moves, also where tau vanishes and v says nothing of a solution.
    The ablation of `benchmarks.paper` shows what becomes of it.
    """
    return torch.stack([finite_norm(fx - x) for x, fx in zip(path.x, path.fx, strict=True)])


LOSSES: dict[str, Callable[[Trajectory, Scene], Tensor]] = {
    "residual": residual,
    "log-residual": log_residual,
    "solution": solution,
    "log-error": log_error,
    "log-both": log_both,
    "raw-residual": raw_residual,
}
NEEDS_SOLUTIONS = frozenset({"solution"})
DEPENDS_ON_SCALE = frozenset({"raw-residual"})
"""Losses that a homogeneous scale changes."""


def _found(values: Tensor) -> Tensor:
    """`LOST` in place of inf."""
    return torch.where(torch.isposinf(values), LOST, values)
