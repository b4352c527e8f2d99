"""The trivial learned starts that every claim of learning must beat; each is fitted in closed form, in seconds.

Unfitted, each is the cold start.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from accelerators.neural.start import NoState, Start, StartInputs
from fixedpoint import Signature
from fixedpoint.learning.learned import Examples


class FittedStart(Start):
    """A start that is fitted to solutions of training instances, not trained by gradients.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
    """

    needs_solutions = True
    fitted: Tensor
    """() 1 once `fit` was called, else 0."""

    def __init__(self, signature: Signature | None = None) -> None:
        super().__init__(signature)
        self.construct()

    def build(self, signature: Signature) -> None:
        """The inputs, and the mark that nothing was fitted yet."""
        self.inputs = StartInputs(signature)
        self.uses_features = self.inputs.features > 0
        self.register_buffer("fitted", torch.zeros(()))

    def fit(self, examples: Examples) -> None:
        """Standardise the inputs, then fit to the solutions."""
        assert examples.solutions is not None, "training gives solutions to those who need them"
        self.inputs.fit(examples)
        self.fit_to(self.inputs(examples.x[0], examples.features), examples.solutions.to(torch.float32))
        self.fitted.fill_(1)

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, NoState]:
        """The predicted start."""
        return torch.where(self.fitted > 0, self.predict(self.inputs(x0, features)).to(x0.dtype), x0), NoState()

    @abstractmethod
    def fit_to(self, inputs: Tensor, solutions: Tensor) -> None:
        """Fit to inputs (N, width) and solutions (N, n)."""

    @abstractmethod
    def predict(self, inputs: Tensor) -> Tensor:
        """(B, width) -> (B, n)."""


class MeanStart(FittedStart):
    """Start at the mean solution of the training instances.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
    """

    mean: Tensor

    def build(self, signature: Signature) -> None:
        """Room for the mean."""
        super().build(signature)
        self.register_buffer("mean", torch.zeros(signature.size))

    def fit_to(self, inputs: Tensor, solutions: Tensor) -> None:
        """Take the mean."""
        self.mean.copy_(solutions.mean(0))

    def predict(self, inputs: Tensor) -> Tensor:
        """The same for all."""
        return self.mean.expand(inputs.shape[0], -1)


class RidgeStart(FittedStart):
    """Start where a ridge regression from the features and the cold start to the solution says.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        penalty: ridge relative to the mean squared length of the standardised inputs, > 0.

    Raises:
        ValueError: a penalty that is not positive.
    """

    weights: Tensor
    """(1 + width, n)"""

    def __init__(self, signature: Signature | None = None, penalty: float = 0.1) -> None:
        if not penalty > 0:
            raise ValueError(f"penalty: expected a number > 0, got {penalty!r}")
        self.penalty = penalty
        super().__init__(signature)

    def build(self, signature: Signature) -> None:
        """Room for the weights."""
        super().build(signature)
        self.register_buffer("weights", torch.zeros(1 + self.inputs.width, signature.size))

    def fit_to(self, inputs: Tensor, solutions: Tensor) -> None:
        """Solve the N x N (dual) normal equations in double precision; the mean is not penalised."""
        mean = solutions.mean(0)
        z = inputs.to(torch.float64)
        kernel = z @ z.mT
        ridge = self.penalty * kernel.diagonal().mean().clamp(min=1e-12)
        kernel = kernel + ridge * torch.eye(len(z), dtype=z.dtype)
        dual = torch.cholesky_solve((solutions - mean).to(z.dtype), torch.linalg.cholesky(kernel))
        self.weights.copy_(torch.cat([mean[None].to(z.dtype), z.mT @ dual]))

    def predict(self, inputs: Tensor) -> Tensor:
        """Affine in the inputs."""
        return self.weights[0] + inputs @ self.weights[1:]


class NearestStart(FittedStart):
    """Start at the solution of the nearest training instance, by features and cold start.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        instances: training instances remembered, at least 1; fewer examples are repeated.

    Raises:
        ValueError: fewer than one instance.
    """

    known: Tensor
    """(instances, width)"""
    answers: Tensor
    """(instances, n)"""

    def __init__(self, signature: Signature | None = None, instances: int = 200) -> None:
        if instances < 1:
            raise ValueError(f"instances: expected at least 1, got {instances!r}")
        self.instances = instances
        super().__init__(signature)

    def build(self, signature: Signature) -> None:
        """Room for the memory."""
        super().build(signature)
        self.register_buffer("known", torch.zeros(self.instances, self.inputs.width))
        self.register_buffer("answers", torch.zeros(self.instances, signature.size))

    def fit_to(self, inputs: Tensor, solutions: Tensor) -> None:
        """Remember."""
        rows = torch.arange(self.instances) % len(inputs)
        self.known.copy_(inputs[rows])
        self.answers.copy_(solutions[rows])

    def predict(self, inputs: Tensor) -> Tensor:
        """The answer to the nearest known input."""
        distance = (inputs.square().sum(1)[:, None] - 2 * inputs @ self.known.mT) + self.known.square().sum(1)
        return self.answers[distance.argmin(1)]
