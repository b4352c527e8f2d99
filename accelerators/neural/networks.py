"""Small networks that compose with torch.func, and the standardisation of what goes into them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fixedpoint.tensors.masks import is_readable


class Standard(nn.Module):
    """Inputs shifted and scaled to mean 0 and standard deviation 1 over what they were fitted on.

    Inputs that hardly vary are left at their scale, so that a constant one does not explode where it is not constant.

    Args:
        size: k, the width of the inputs (B, k).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, samples: Tensor) -> None:
        """Set mean and scale from samples (N, k)."""
        spread = samples.std(0, correction=0)
        floor = 1e-3 * samples.abs().mean(0) + 1e-6 * samples.abs().mean()
        self.mean.copy_(samples.mean(0))
        self.scale.copy_(torch.where(spread > floor, spread, torch.clamp(floor, min=1e-12)))

    def forward(self, t: Tensor) -> Tensor:
        """(B, k) standardised, within +-10: far outside the training data a network knows nothing."""
        return ((t.to(self.mean.dtype) - self.mean) / self.scale).nan_to_num().clamp(-10, 10)


class MLP(nn.Sequential):
    """Linear layers with SiLU between them; the last one starts at zero, so that the untrained network says 0.

    Args:
        sizes: widths from input to output.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.SiLU()]
        super().__init__(*layers[:-1])
        zero(self[-1])


class GRUCell(nn.GRUCell):
    """A gated recurrent unit (Cho et al. 2014): torch's, written out where torch.func.vmap has no rule for it."""

    def forward(self, z: Tensor, state: Tensor) -> Tensor:  # type: ignore[override]
        """The next state (B, hidden)."""
        if is_readable(z):
            return super().forward(z, state)
        given = nn.functional.linear(z, self.weight_ih, self.bias_ih).chunk(3, dim=-1)
        kept = nn.functional.linear(state, self.weight_hh, self.bias_hh).chunk(3, dim=-1)
        reset, update = (torch.sigmoid(a + b) for a, b in zip(given[:2], kept[:2], strict=True))
        new = torch.tanh(given[2] + reset * kept[2])
        return new + update * (state - new)


class LSTMCell(nn.Module):
    """A long short-term memory cell (Hochreiter & Schmidhuber 1997) whose state is one tensor (B, 2 h) of (h, c).

    Written out because torch's own has no rule for torch.func.vmap.

    Args:
        inputs: width of the input.
        hidden: h.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, z: Tensor, state: Tensor) -> Tensor:
        """The next state."""
        h, c = state.chunk(2, dim=-1)
        enter, forget, leave, new = self.gates(torch.cat([z, h], dim=-1)).chunk(4, dim=-1)
        c = torch.sigmoid(forget + 1) * c + torch.sigmoid(enter) * torch.tanh(new)  # +1: remember at first
        return torch.cat([torch.sigmoid(leave) * torch.tanh(c), c], dim=-1)


def zero(layer: nn.Module) -> None:
    """Set a linear layer to 0."""
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def length(t: Tensor) -> Tensor:
    """(B, 1) Euclidean length of the rows, with a derivative of 0, not NaN, at 0."""
    squared = (t * t).sum(1, keepdim=True)
    positive = squared > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, squared, torch.ones_like(squared))), 0.0)


def direction(t: Tensor, size: Tensor) -> Tensor:
    """(B, n) t / size, 0 where the size (B, 1) is 0."""
    positive = size > 0
    return torch.where(positive, t / torch.where(positive, size, torch.ones_like(size)), 0.0)


def decades(size: Tensor, first: Tensor) -> Tensor:
    """(B, 1) log10 of the size relative to the first one, within +-16; 0 where either is 0."""
    usable = (size > 0) & (first > 0)
    ratio = torch.where(usable, size, torch.ones_like(size)) / torch.where(usable, first, torch.ones_like(first))
    return torch.log10(ratio).clamp(-16, 16)
