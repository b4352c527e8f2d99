"""Krasnosel'skii-Mann relaxation: a fixed step along the residual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from accelerators.picard import PicardState
from fixedpoint import Accelerator, Evaluation, Range, Signature
from fixedpoint.search_space import SearchSpace


class Relaxed(Accelerator):
    """Over- or under-relaxed iteration: next x = x + relaxation (f(x) - x).

    For an a-averaged map it converges while relaxation * a <= 1 (Krasnosel'skii 1955, Mann 1953); a map that declares
    its averagedness is refused beyond that.

    Args:
        relaxation: in (0, 2); 1 is the plain iteration.

    Raises:
        ValueError: relaxation outside (0, 2), or too large for the map.
    """

    uses_features = False
    tunable: ClassVar[Mapping[str, SearchSpace]] = {"relaxation": Range(0.7, 1.3)}

    def __init__(self, relaxation: float = 1.1) -> None:
        if not 0 < relaxation < 2:
            raise ValueError(f"relaxation: expected a number in (0, 2), got {relaxation}")
        self.relaxation = relaxation

    def check(self, signature: Signature) -> None:
        """Refuse a map that the relaxation would make expansive."""
        averaged = signature.averagedness
        if averaged is not None and self.relaxation * averaged > 1 + 1e-12:
            raise ValueError(
                f"relaxation: {self.relaxation} times the map's averagedness {averaged:g} exceeds 1, where the "
                f"iteration may diverge; use at most {1 / averaged:.4g}"
            )

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, PicardState]:
        """Start at x0."""
        return x0, PicardState()

    def step(self, at: Evaluation, state: PicardState) -> tuple[Tensor, PicardState]:
        """Next x = x + relaxation * residual."""
        return at.x + self.relaxation * at.residual, state
