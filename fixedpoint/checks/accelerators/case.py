"""What a law about accelerators is tested on: an accelerator, an affine map, its evaluations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fixedpoint.checks.compare import clone
from fixedpoint.checks.report import Laws
from fixedpoint.checks.specimen import Specimen, SpecimenProblem
from fixedpoint.protocol import Accelerator
from fixedpoint.signature import Signature
from fixedpoint.solution import Evaluation
from fixedpoint.tensors import pytrees

BATCH = 5
RATE = 0.9
"""The contraction factor of the map that accelerators are tested on."""


class Moment(NamedTuple):
    """One step of an accelerator: what it saw and what it answered."""

    at: Evaluation
    before: Any
    x: Tensor
    after: Any


class AcceleratorCase:
    """An accelerator with an affine contraction of its size."""

    def __init__(self, accelerator: Accelerator, signature: Signature) -> None:
        self.accelerator, self.signature = accelerator, signature
        self.map = Specimen(signature)
        self.problem = self.map.sample(BATCH, rate=RATE, seed=0)
        self.easy = self.problem._replace(right=self.problem.left, values=self.problem.values.abs())
        weights = self.map.sample(BATCH, rate=RATE, seed=3).b
        self.metrics: tuple[Tensor | None, ...] = (None, torch.exp(weights))

    def begin(self, problem: SpecimenProblem, metric: Tensor | None = None) -> tuple[Tensor, Any]:
        """The accelerator's own start."""
        features = self.map.featurize(problem) if self.accelerator.uses_features else None
        return self.accelerator.init(self.map.initial(problem), features, metric)

    def evaluation(self, x: Tensor, problem: SpecimenProblem) -> Evaluation:
        """The map at x."""
        fx = self.map.forward(x, problem)
        return Evaluation(x, fx, fx - x)

    def rollout(self, steps: int, problem: SpecimenProblem | None = None, metric: Tensor | None = None) -> list[Moment]:
        """That many steps from the accelerator's start."""
        problem = self.problem if problem is None else problem
        x, state = self.begin(problem, metric)
        moments = []
        for _ in range(steps):
            at = self.evaluation(x, problem)
            moments.append(Moment(at, state, *self.accelerator.step(at, state)))
            x, state = moments[-1].x, moments[-1].after
        return moments

    def replay(self, moments: list[Moment], change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The points chosen when shown the same evaluations with `change` applied to every vector."""
        x0 = change(self.map.initial(self.problem))
        features = self.map.featurize(self.problem) if self.accelerator.uses_features else None
        _, state = self.accelerator.init(x0, features, None)
        points = []
        for moment in moments:
            x, state = self.accelerator.step(Evaluation(*map(change, moment.at)), state)
            points.append(x)
        return points


def named(x: Tensor, state: Any) -> dict[str, Tensor]:
    """A point and the tensors of a state, by name."""
    return {"x": x} | {f"state ({name})": t for name, t in pytrees.tensors(state).items()}


def held(thing: Any, depth: int = 4) -> dict[str, Any]:
    """Everything an object holds, by path: copies of tensors, other values as text."""
    found: dict[str, Any] = {}
    items = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list | tuple) else None
    if items is None and hasattr(thing, "__dict__") and not callable(getattr(thing, "__get__", None)):
        items = vars(thing).items()
    if isinstance(thing, Tensor):
        return {"": clone(thing)}
    if items is None or depth == 0:
        return {"": repr(thing)}
    for key, value in items:
        found |= {f"{key}.{path}".rstrip("."): v for path, v in held(value, depth - 1).items()}
    return found


accelerator_law: Laws[AcceleratorCase] = Laws()
"""The laws of accelerators, in the order in which they are tested."""
