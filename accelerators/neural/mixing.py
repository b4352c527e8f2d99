"""Learned mixing: a small network adjusts Anderson's weights, ridge and relaxation from the history's geometry.

After Bai, Koltun & Kolter, "Neural deep equilibrium solvers" (2022), whose network predicts the mixing outright; here
Anderson acceleration of type II gives the weights and the network corrects them, so that untrained it is Anderson's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from accelerators.anderson import AndersonII, AndersonState, lengths, mix
from accelerators.neural.networks import MLP
from fixedpoint import Evaluation, Signature
from fixedpoint.learned import Learned
from fixedpoint.settings import Setting


class Mixing(Learned):
    """Anderson acceleration of type II with learned weights: x+ = f(x) - (S + Y) gamma' - (1 - beta') (r - Y gamma').

    The network sees the cosines between the residual differences of the history, Anderson's share of the residual that
    each explains, and how much of it is left; it answers with a factor on each share and on the whole step.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        memory: differences kept, as `AndersonII`.
        start: plain evaluations before the history begins, as `AndersonII`.
        width: of the inner layer.
        seed: of the initial weights.

    Raises:
        ValueError: an argument outside its range.
    """

    uses_features = False
    observant: ClassVar[bool] = True
    tunable: ClassVar[Mapping[str, Setting]] = AndersonII.tunable

    def __init__(
        self, signature: Signature | None = None, memory: int = 10, start: int = 0, width: int = 32, seed: int = 0
    ) -> None:
        super().__init__(signature, seed)
        self.memory, self.start, self.width = memory, start, width
        self.anderson = AndersonII(memory=memory, start=start)
        self.construct()

    def build(self, signature: Signature) -> None:
        """The network."""
        m = self.memory
        self.network = MLP([m * m + m + 1, self.width, self.width, m + 1])

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, AndersonState]:
        """Anderson's."""
        return self.anderson.init(x0, features, metric)

    def step(self, at: Evaluation, state: AndersonState) -> tuple[Tensor, AndersonState]:
        """Anderson's weights, then their correction."""
        state = self.anderson.record(at, state)
        gamma = self.anderson.weights(at.residual, state)
        size = lengths(state.dr, state.metric)
        whole = lengths(at.residual[:, None], state.metric)
        order = (torch.arange(self.memory, device=size.device) + (state.seen - self.start - 1)[:, None]) % self.memory
        cosines = state.gram / size[:, :, None] / size[:, None, :]
        cosines = cosines.gather(1, order[:, :, None].expand_as(cosines)).gather(2, order[:, None].expand_as(cosines))
        shares = (gamma * size / whole).gather(1, order).clamp(-10, 10)
        left = at.residual - (gamma[:, None] @ state.dr)[:, 0]
        remains = lengths(left[:, None], state.metric) / whole
        seen = torch.cat([cosines.flatten(1), shares, remains.clamp(0, 10)], dim=1)
        answer = torch.tanh(self.network(seen.nan_to_num().to(torch.float32))).to(gamma.dtype)
        factors = answer[:, : self.memory].gather(1, order.argsort(1))
        mixed = mix(at, state, gamma * (1 + 0.5 * factors), 1 + 0.5 * answer[:, self.memory :])
        return torch.where(torch.isfinite(mixed).all(1, keepdim=True), mixed, at.fx), state
