"""The elastic net by proximal gradient (ISTA): the second experiment of the neural-acceleration paper.

min_x  1/2 ||A x - b||^2 + mu (beta ||x||_1 + (1 - beta)/2 ||x||^2)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fixedpoint import Assessment, Context, Evaluation, FixedPointMap, ProblemFamily, Range, Signature, Status
from fixedpoint.search_space import SearchSpace
from fixedpoint.solve.front import solved


class ElasticNetProblem(NamedTuple):
    """One elastic net, or a batch of them."""

    A: Tensor
    """(m, n) shared by the batch, or (B, m, n)."""
    b: Tensor
    """(m,) or (B, m)."""
    mu: Tensor
    """() or (B,) penalty, >= 0."""


class _Rows(NamedTuple):
    A: Tensor | None
    b: Tensor
    mu: Tensor
    length: Tensor
    """(B,) step length t = step / (L + mu (1 - beta)), L the largest eigenvalue of A'A."""
    scale: Tensor
    """(B,) ||A'b||_inf, the size of the gradient at 0."""


class ElasticNet(FixedPointMap[ElasticNetProblem, Context]):
    """ISTA: f(x) = soft(x - t grad, t mu beta), grad = A'(A x - b) + mu (1 - beta) x, t = step / Lipschitz constant.

    The residual it reports is the gradient mapping ||p(x) - x||_2 L relative to ||A'b||_inf, p being the step of length
    1/L, so that it does not depend on the choice of `step`. Started at 0.

    Args:
        size: n.
        beta: share of the l1 penalty, in [0, 1].
        step: in (0, 2); the paper uses 1.8.

    Raises:
        ValueError: beta or step outside its range.
    """

    ranks: ClassVar = {"A": 2, "b": 1, "mu": 0}
    tunable: ClassVar[Mapping[str, SearchSpace]] = {"step": Range(0.6, 1.95)}

    def __init__(self, size: int = 25, beta: float = 0.5, step: float = 1.8) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta: expected a number in [0, 1], got {beta}")
        if not 0 < step < 2:
            raise ValueError(f"step: expected a number in (0, 2), got {step}")
        self.beta, self.step = beta, step
        # a gradient step is step/2-averaged, the prox 1/2-averaged; their composition by Combettes & Yamada (2015)
        averagedness = 1 / (2 - step / 2)
        self.signature = Signature(
            size=size,
            features=2 * size + 2,
            traits=frozenset({"nonexpansive", "averaged"}),
            averagedness=averagedness,
            coordinates={"map": "elastic-net", "beta": beta, "step": step},
        )

    def faults(self, problem: ElasticNetProblem) -> dict[str, Tensor]:
        """A negative penalty."""
        negative = problem.mu < 0
        size = next(t.shape[0] for t, rank in zip(problem, (2, 1, 0), strict=True) if t.ndim > rank)
        return {"mu: expected a penalty >= 0": negative.expand(size)}

    def setup(self, problem: ElasticNetProblem) -> Context:
        """The Lipschitz constant of each instance (one eigenvalue problem when A is shared).

        Raises:
            ValueError: shapes that do not fit.
        """
        A, b, mu = problem
        if A.shape[-1] != self.signature.size:
            raise ValueError(f"A: expected {self.signature.size} columns, got shape {tuple(A.shape)}")
        if b.shape[-1] != A.shape[-2]:
            raise ValueError(f"b: expected {A.shape[-2]} entries, one per row of A, got shape {tuple(b.shape)}")
        batch = next(t.shape[0] for t, rank in zip(problem, (2, 1, 0), strict=True) if t.ndim > rank)
        b, mu = b.expand(batch, -1), mu.expand(batch)
        # the step length is a setting, not a part of the problem: at the fixed point its derivative is zero
        lipschitz = torch.linalg.matrix_norm(A.detach(), ord=2) ** 2 + mu.detach() * (1 - self.beta)
        length = self.step / torch.clamp(lipschitz, min=torch.finfo(b.dtype).tiny)
        scale = torch.linalg.vector_norm(b.detach()[:, None] @ A.detach(), ord=torch.inf, dim=(1, 2))
        shared = A.ndim == 2
        return Context(
            rows=_Rows(None if shared else A, b, mu, length.expand(batch), scale),
            shared=A if shared else None,
            problem=problem,
        )

    def featurize(self, context: Context) -> Tensor:
        """(B, 2 n + 2) what the first steps are made of: t A'b, t diag(A'A), t mu, t ||A'b||_inf.

        A itself is left out: n^2 numbers of which a network makes little.
        """
        rows, t = context.rows, context.rows.length[:, None]
        A = rows.A if context.shared is None else context.shared
        pull = (rows.b[:, None] @ A)[:, 0]
        squares = (A * A).sum(-2).expand_as(pull)
        return torch.cat([t * pull, t * squares, t * rows.mu[:, None], t * rows.scale[:, None]], dim=1)

    def initial(self, context: Context) -> Tensor:
        """Zero."""
        return torch.zeros_like(context.rows.b[:, :1]).expand(-1, self.signature.size).contiguous()

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """One proximal-gradient step."""
        return self.evaluate(x, context)[0]

    def evaluate(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """One proximal-gradient step, and the gradient of the smooth part (B, n)."""
        rows = context.rows
        if context.shared is not None:
            slope = (x @ context.shared.mT - rows.b) @ context.shared
        else:
            slope = ((x[:, None] @ rows.A.mT - rows.b[:, None]) @ rows.A)[:, 0]
        slope = slope + (rows.mu * (1 - self.beta))[:, None] * x
        return self._prox(x, slope, rows.length, rows), slope

    def assess(self, evaluation: Evaluation, aux: Tensor, context: Context) -> Assessment:
        """Relative gradient mapping of a step of length 1/L, whatever `step` is; absolute where A'b = 0."""
        rows = context.rows
        scale = torch.where(rows.scale > 0, rows.scale, torch.ones_like(rows.scale))
        length = rows.length / self.step
        moved = self._prox(evaluation.x, aux, length, rows) - evaluation.x
        residual = torch.linalg.vector_norm(moved, dim=1) / (length * scale)
        return Assessment(residual, torch.full_like(residual, Status.RUNNING, dtype=torch.int64))

    def _prox(self, x: Tensor, slope: Tensor, length: Tensor, rows: _Rows) -> Tensor:
        """soft(x - t slope, t mu beta) for step lengths t (B,)."""
        moved = x - length[:, None] * slope
        threshold = (length * rows.mu * self.beta)[:, None]
        return torch.nn.functional.relu(moved - threshold) - torch.nn.functional.relu(-moved - threshold)


class RandomElasticNet(ProblemFamily):
    """The paper's elastic nets: A standard normal, b = A x + 0.1 w, x 10% dense, mu = 0.001 of the largest useful one.

    Args:
        size: m = n.
        noise: standard deviation of the noise in b.
        density: expected share of true coefficients that are not zero, in [0, 1].
        spread: standard deviation of these.
        **settings: arguments of `ElasticNet`, with beta > 0.

    Raises:
        ValueError: beta = 0, a density outside [0, 1], a negative noise or spread, or as `ElasticNet`.
    """

    tunable: ClassVar[Mapping[str, SearchSpace]] = ElasticNet.tunable
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "noise x2": {"noise": 0.2},
        "density x2": {"density": 0.2},
        "size x2": {"spread": 2.0},
    }

    def __init__(
        self, size: int = 25, noise: float = 0.1, density: float = 0.1, spread: float = 1.0, **settings: Any
    ) -> None:
        if not 0 <= density <= 1:
            raise ValueError(f"density: expected a number in [0, 1], got {density!r}")
        if not noise >= 0 or not spread >= 0:
            raise ValueError(f"noise, spread: expected numbers >= 0, got {noise!r}, {spread!r}")
        self.noise, self.density, self.spread = noise, density, spread
        self.map: ElasticNet = ElasticNet(size, **settings)
        if self.map.beta == 0:
            raise ValueError("beta: expected a number in (0, 1]: without an l1 penalty there is no largest useful mu")

    def solutions(self, problem: ElasticNetProblem) -> Tensor:
        """(B, n) minimisers, from the map itself, solved to 1e-9.

        Raises:
            ArithmeticError: an instance was not solved; the message names it.
        """
        return solved(self.map, problem)

    def sample(self, batch: int, *, generator: torch.Generator) -> ElasticNetProblem:
        """A batch with a matrix of its own for each instance, float64."""
        n = self.map.signature.size
        A = torch.randn(batch, n, n, generator=generator, dtype=torch.float64)
        x = torch.randn(batch, n, generator=generator, dtype=torch.float64)
        x = self.spread * x * (torch.rand(batch, n, generator=generator, dtype=torch.float64) < self.density)
        noise = torch.randn(batch, n, generator=generator, dtype=torch.float64)
        b = (A @ x[:, :, None])[:, :, 0] + self.noise * noise
        largest = (A.mT @ b[:, :, None])[:, :, 0].abs().amax(1) / self.map.beta
        return ElasticNetProblem(A, b, 0.001 * largest)
