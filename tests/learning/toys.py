"""Small things to train: an accelerator with one number to learn, and problems whose best number is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fixedpoint as fp
from fixedpoint.learning.learned import Examples, Learned
from fixedpoint.learning.trainer import Trainer
from fixedpoint.learning.training import Plan
from maps.affine import Affine, AffineProblem, RandomAffine

RATE = 0.5
"""Of `Alike`: x+ = x + 1/(1 - RATE) r solves it in one step."""


class Alike(fp.ProblemFamily):
    """x = RATE x + b: every coordinate and every instance contracts alike."""

    def __init__(self, size: int = 3) -> None:
        self.map = Affine(size)

    def sample(self, batch: int, *, generator: torch.Generator) -> AffineProblem:
        size = self.map.signature.size
        A = RATE * torch.eye(size, dtype=torch.float64)
        return AffineProblem(A, torch.randn(batch, size, generator=generator, dtype=torch.float64))


class OneMatrix(fp.ProblemFamily):
    """x = A x + b with the same A for all: what there is to learn is (I - A)^{-1}."""

    def __init__(self, size: int = 4, rate: float = 0.95) -> None:
        self.map = Affine(size)
        self.A = RandomAffine(size, rate).sample(1, generator=torch.Generator().manual_seed(0)).A[0]

    def sample(self, batch: int, *, generator: torch.Generator) -> AffineProblem:
        return AffineProblem(self.A, torch.randn(batch, len(self.A), generator=generator, dtype=torch.float64))

    def reference(self, problem: AffineProblem) -> Tensor:
        return torch.linalg.solve(torch.eye(len(self.A), dtype=torch.float64) - self.A, problem.b.mT).mT


class Factor(Learned):
    """x+ = x + exp(log_factor) r: the step length is learned. It keeps what it was fitted on."""

    uses_features = False
    steps = 50

    def __init__(self, signature: fp.Signature | None = None, seed: int = 0) -> None:
        super().__init__(signature, seed)
        self.construct()

    def build(self, signature: fp.Signature) -> None:
        self.log_factor = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def fit(self, examples: Examples) -> None:
        self.examples = examples

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Any]:
        return x0, ()

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> Any:
        return ()

    def step(self, at: fp.Evaluation, state: Any) -> tuple[Tensor, Any]:
        return at.x + self.log_factor.exp() * at.residual, state


SMALL: dict[str, Any] = {
    "horizon": 6,
    "updates": 12,
    "batch": 4,
    "instances": 16,
    "validation": 4,
    "evaluations": 12,
    "validate_every": 4,
}
"""A plan of a fraction of a second."""


def gradients(family: fp.ProblemFamily, accelerator: Learned, **plan: Any) -> list[list[Tensor]]:
    """What the optimiser is given, update by update."""
    trainer = Trainer(family, accelerator.bind(family.map.signature), Plan(**{**SMALL, "clip": 1e6, **plan}))
    found: list[list[Tensor]] = []

    def note(*_: Any) -> None:
        found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters])

    trainer.optimizer.register_step_pre_hook(note)
    trainer.run()
    return found
