"""Learned mixing: a small network adjusts Anderson's weights, ridge and relaxation from the history's geometry.

After Bai, Koltun & Kolter, "Neural deep equilibrium solvers" (2022), whose network predicts the mixing outright; here
Anderson acceleration of type II gives the weights and the network corrects them, so that untrained it is Anderson's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from accelerators.anderson import AndersonII, AndersonState, combine, lengths, mix
from accelerators.neural.networks import MLP
from fixedpoint import Evaluation, Signature
from fixedpoint.learning.learned import Learned, require_counts
from fixedpoint.search_space import SearchSpace
from fixedpoint.tensors.masks import where_rows


class MixingState(NamedTuple):
    """The history, and how often the weights were corrected."""

    anderson: AndersonState
    seen: Tensor
    """(B,) int64, evaluations seen."""


class Mixing(Learned):
    """Anderson acceleration of type II with learned weights: x+ = f(x) - (S + Y) gamma' - (1 - beta') (r - Y gamma').

    The network sees the cosines between the residual differences of the history, Anderson's share of the residual that
    each explains, and how much of it is left; it answers with a factor on each share and on the whole step.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        memory: differences kept, as `AndersonII`.
        start: plain evaluations before the history begins, as `AndersonII`.
        width: of the inner layers.
        steps: evaluations whose step is learned; then Anderson's own.
        seed: of the initial weights.

    Raises:
        ValueError: an argument outside its range.
    """

    uses_features = False
    learns_from_others: ClassVar[bool] = True
    tunable: ClassVar[Mapping[str, SearchSpace]] = AndersonII.tunable

    def __init__(
        self,
        signature: Signature | None = None,
        memory: int = 10,
        start: int = 0,
        width: int = 32,
        steps: int = 30,
        seed: int = 0,
    ) -> None:
        require_counts(width=width, steps=steps)
        super().__init__(signature, seed)
        self.memory, self.start, self.width, self.steps = memory, start, width, steps
        self.anderson = AndersonII(memory=memory, start=start)
        self.construct()

    def build(self, signature: Signature) -> None:
        """The network."""
        m = self.memory
        self.network = MLP([m * m + m + 1, self.width, self.width, m + 1])

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, MixingState]:
        """Anderson's."""
        x, anderson = self.anderson.init(x0, features, metric)
        return x, MixingState(anderson, torch.zeros_like(anderson.seen))

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> MixingState:
        """Anderson's own weights."""
        anderson = self.anderson.restart(x0, metric)
        return MixingState(anderson, torch.full_like(anderson.seen, self.steps))

    def step(self, at: Evaluation, state: MixingState) -> tuple[Tensor, MixingState]:
        """Anderson's weights, then their correction."""
        anderson = self.anderson.record(at, state.anderson)
        gamma = self.anderson.weights(at.residual, anderson)
        factors, relaxation = self._answer(at, anderson, gamma)
        over = (state.seen >= self.steps) | (state.seen <= self.start)  # no history yet: plain
        gamma = where_rows(over, gamma, gamma * factors)
        mixed = mix(at, anderson, gamma, where_rows(over, torch.ones_like(relaxation), relaxation))
        following = torch.where(torch.isfinite(mixed).all(1, keepdim=True), mixed, at.fx)
        return following, MixingState(anderson, state.seen + 1)

    def _answer(self, at: Evaluation, state: AndersonState, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Factors on gamma (B, m) and the relaxation (B, 1), between 1/2 and 3/2."""
        size = lengths(state.dr, state.metric)
        whole = lengths(at.residual[:, None], state.metric)
        newest_last = (
            torch.arange(self.memory, device=size.device) + (state.seen - self.start - 1)[:, None]
        ) % self.memory
        rows, columns = newest_last[:, :, None], newest_last[:, None, :]
        cosines = state.gram / size[:, :, None] / size[:, None, :]
        cosines = cosines.gather(1, rows.expand_as(cosines)).gather(2, columns.expand_as(cosines))
        shares = (gamma * size / whole).gather(1, newest_last).clamp(-10, 10)
        left = at.residual - combine(gamma, state.dr)
        remains = (lengths(left[:, None], state.metric) / whole).clamp(0, 10)
        seen = torch.cat([cosines.flatten(1), shares, remains], dim=1)
        answer = 1 + 0.5 * torch.tanh(self.network(seen.nan_to_num().to(torch.float32))).to(gamma.dtype)
        return answer[:, : self.memory].gather(1, newest_last.argsort(1)), answer[:, self.memory :]
