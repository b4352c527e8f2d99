"""Small plug-ins that the checks themselves need; `fixedpoint` may not import those that ship beside it."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.signature import Signature
from fixedpoint.solution import Evaluation


class Plain(Accelerator):
    """The plain iteration."""

    uses_features = False

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, tuple[()]]:
        """Start at x0."""
        return x0, ()

    def step(self, at: Evaluation, state: Any) -> tuple[Tensor, Any]:
        """Next x = f(x)."""
        return at.fx, state


class SpecimenProblem(NamedTuple):
    """f(x) = H_left diag(values) H_right x + b with reflections H_v x = x - 2 v <v, x>, all (B, n)."""

    left: Tensor
    values: Tensor
    right: Tensor
    """Equal to `left`, it makes the map symmetric with eigenvalues `values`."""
    b: Tensor


class Specimen(FixedPointMap[SpecimenProblem, SpecimenProblem]):
    """An affine map of known singular values that costs O(n), for any signature. It counts its evaluations."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.calls = 0

    def initial(self, context: SpecimenProblem) -> Tensor:
        """Zero."""
        return torch.zeros_like(context.b)

    def forward(self, x: Tensor, context: SpecimenProblem) -> Tensor:
        """A x + b."""
        self.calls += 1
        left, values, right, b = context
        return _reflect(left, values * _reflect(right, x)) + b

    def featurize(self, context: SpecimenProblem) -> Tensor:
        """(B, k) entries of b, repeated as often as the signature wants."""
        size = self.signature.size
        return context.b[:, torch.arange(self.signature.features or size) % size]

    def sample(self, batch: int, *, rate: float, seed: int) -> SpecimenProblem:
        """Singular values spread over [-rate, rate], float64."""
        generator = torch.Generator().manual_seed(seed)
        size = self.signature.size

        def normal() -> Tensor:
            return torch.randn(batch, size, generator=generator, dtype=torch.float64)

        def unit(v: Tensor) -> Tensor:
            return v / torch.linalg.vector_norm(v, dim=1, keepdim=True)

        values = torch.linspace(-rate, rate, size, dtype=torch.float64).expand(batch, size).contiguous()
        return SpecimenProblem(unit(normal()), values, unit(normal()), normal())


def _reflect(v: Tensor, x: Tensor) -> Tensor:
    """(B, n) x reflected at the hyperplane with unit normal v."""
    return x - 2 * v * (v * x).sum(1, keepdim=True)


def reflection(batch: int, size: int) -> Any:
    """An orthogonal transformation of each row, as a function."""
    v = Specimen(Signature(size)).sample(batch, rate=0.5, seed=7).left
    return lambda x: _reflect(v, x)


class Adversary(Accelerator):
    """An accelerator that a safeguard must survive.

    Args:
        kind: "nan", "huge", "random", "constant" or "stuck" (never moves).
    """

    uses_features = False
    KINDS: ClassVar[tuple[str, ...]] = ("nan", "huge", "random", "constant", "stuck")

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The state counts the steps."""
        return x0, torch.zeros_like(x0[:, 0])

    def step(self, at: Evaluation, state: Tensor) -> tuple[Tensor, Tensor]:
        """Anything but a better point."""
        count = state[:, None]
        place = torch.arange(1, at.x.shape[1] + 1, dtype=at.x.dtype, device=at.x.device)
        proposals = {
            "nan": torch.full_like(at.x, torch.nan),
            "huge": 1e100 * torch.ones_like(at.x),
            "random": at.x + torch.sin(1e4 * place * (count + 1)),
            "constant": torch.ones_like(at.x),
            "stuck": at.x,
        }
        return proposals[self.kind], state + 1
