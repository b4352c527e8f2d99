"""Where to start: the learned g_init of Algorithm 1.

The start is predicted from the features phi of the problem and from the cold start itself, which many maps make from
the problem (SCS's holds a linear solve of its data).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from accelerators.neural.networks import MLP, Standard
from fixedpoint import Evaluation, Signature
from fixedpoint.learning.learned import Examples, Learned, require_counts, require_flags

MOST_FEATURES = 4096
"""Wider features are not looked at: with a few thousand instances a network only learns these by heart."""


class StartInputs(nn.Module):
    """What a start is predicted from: (B, width) the cold start and the features, standardised.

    Args:
        signature: of the map.
        context: whether to look at the features.
    """

    def __init__(self, signature: Signature, context: bool = True) -> None:
        super().__init__()
        self.features = signature.features if context and signature.features <= MOST_FEATURES else 0
        self.width = signature.size + self.features
        self.standard = Standard(self.width)

    def fit(self, examples: Examples) -> None:
        """Fit the standardisation."""
        self.standard.fit(self._joined(examples.x[0], examples.features))

    def forward(self, x0: Tensor, features: Tensor | None) -> Tensor:
        """(B, width), in the networks' dtype.

        Raises:
            ValueError: features of another width than the signature says.
        """
        return self.standard(self._joined(x0, features))

    def _joined(self, x0: Tensor, features: Tensor | None) -> Tensor:
        if self.features == 0:
            return x0
        if features is None or features.shape[1] != self.features:
            got = "none" if features is None else features.shape[1]
            raise ValueError(f"features: this accelerator was built for {self.features} of them, got {got}")
        return torch.cat([x0, features.to(x0.dtype)], dim=1)


class StartNetwork(nn.Module):
    """(x_1 - x_0 (B, n), h_1 (B, hidden)) from the cold start and the features; untrained, the offset is 0.

    Args:
        signature: of the map.
        width: of its two inner layers.
        hidden: width of h_1, 0 for none.
        context: whether to look at the features.
    """

    scale: Tensor
    """(n,) how far the plain iteration travels."""

    def __init__(self, signature: Signature, width: int, hidden: int, context: bool) -> None:
        super().__init__()
        self.widths = [signature.size, hidden]
        self.inputs = StartInputs(signature, context)
        self.body = MLP([self.inputs.width, width, width, sum(self.widths)])
        self.register_buffer("scale", torch.ones(signature.size))

    @property
    def uses_features(self) -> bool:
        """Whether it looks at the features."""
        return self.inputs.features > 0

    def fit(self, examples: Examples) -> None:
        """Fit the standardisation and the scale."""
        self.inputs.fit(examples)
        travelled = (examples.x - examples.x[0]).square().mean((0, 1)).sqrt()
        self.scale.copy_(travelled + 1e-3 * travelled.mean())

    def forward(self, x0: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """See the class; the offset in the dtype of x0, h_1 in the network's."""
        offset, hidden = self.body(self.inputs(x0, features)).split(self.widths, dim=1)
        return (offset * self.scale).to(x0.dtype), torch.tanh(hidden)


class NoState(NamedTuple):
    """Nothing is remembered after the start."""


class Start(Learned):
    """An accelerator that only chooses the start; then the plain iteration, or what a schedule has next."""

    steps = 0

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> NoState:
        """Nothing to forget."""
        return NoState()

    def step(self, at: Evaluation, state: Any) -> tuple[Tensor, Any]:
        """Next x = f(x)."""
        return at.fx, state


class WarmStart(Start):
    """A network predicts the start from the problem's features and its cold start; then the plain iteration.

    "warm-start+anderson-2" goes on with Anderson acceleration. Untrained, it is the cold start. Sambharya et al. (2024)
    train such starts through the iterations that follow.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        width: of the two inner layers.
        context: whether to look at the features (never at more than 4096), beside the cold start.
        seed: of the initial weights.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self, signature: Signature | None = None, width: int = 128, context: bool = True, seed: int = 0
    ) -> None:
        require_counts(width=width)
        require_flags(context=context)
        super().__init__(signature, seed)
        self.width, self.context = width, context
        self.construct()

    def build(self, signature: Signature) -> None:
        """The network."""
        self.network = StartNetwork(signature, self.width, 0, self.context)
        self.uses_features = self.network.uses_features

    def fit(self, examples: Examples) -> None:
        """Input normalisation."""
        self.network.fit(examples)

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, NoState]:
        """The predicted start."""
        return x0 + self.network(x0, features)[0], NoState()
