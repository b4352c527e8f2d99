"""The recurrent updates of Algorithm 1: a GRU or an LSTM corrects every step of the iteration.

With b the step of the `base` accelerator (f(x) for the plain iteration) and r = f(x) - x the next point is

    form "scaled":   x+ = b + ||r|| net(x, r/||r||, log ||r||, h)     it vanishes at the solution, so that a network in
                                                                     single precision sets no floor to the error
    form "raw":      x+ = b + net(x, r/||r||, log ||r||, h)           the paper's (Venkataraman & Amos 2021)

Untrained, both are the base.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from accelerators.neural.networks import GRUCell, LSTMCell, Standard, decades, direction, length, zero
from accelerators.neural.start import StartNetwork
from fixedpoint import Accelerator, Evaluation, Signature
from fixedpoint import accelerators as registry
from fixedpoint.learning.learned import Examples, Learned, require_counts, require_flags
from fixedpoint.tensors.masks import is_readable, where_rows

REACH = 5.0
"""A correction of form "scaled" is at most this many times as long as the residual."""


class RecurrentState(NamedTuple):
    """What a recurrent accelerator remembers of each instance."""

    hidden: Tensor
    """The cell's own, in the network's dtype."""
    seen: Tensor
    """(B,) int64, evaluations seen."""
    first: Tensor
    """(B, 1) size of the residual at the first evaluation; 0 before it."""
    base: Any


class Seen(NamedTuple):
    """An evaluation as a network sees it: free of units, all in the network's dtype."""

    x: Tensor
    """(B, n) standardised."""
    residual: Tensor
    """(B, n) r in units of `spread`, of root mean square 1."""
    base: Tensor
    """(B, n) b - f(x) in the same units, within +-10."""
    decades: Tensor
    """(B, 1) log10 of the residual's size relative to the first evaluation's."""


class Corrector(Learned):
    """Learned corrections to the steps of a base accelerator, for the first `steps` evaluations; then the base alone.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        hidden: width of the hidden state.
        steps: evaluations whose step is corrected.
        form: "scaled" or "raw", see the module.
        start: whether to learn the start too.
        context: whether the start looks at the features.
        base: accelerator, or the registered name of one, whose steps are corrected.
        seed: of the initial weights.

    Raises:
        ValueError: an argument outside its range; TypeError: `base` is no accelerator.
    """

    def __init__(
        self,
        signature: Signature | None = None,
        hidden: int = 128,
        steps: int = 20,
        form: Literal["scaled", "raw"] = "scaled",
        start: bool = True,
        context: bool = True,
        base: Accelerator | str = "picard",
        seed: int = 0,
    ) -> None:
        super().__init__(signature, seed)
        require_counts(hidden=hidden, steps=steps)
        require_flags(start=start, context=context)
        if form not in ("scaled", "raw"):
            raise ValueError(f'form: expected "scaled" or "raw", got {form!r}')
        base = registry.create(base) if isinstance(base, str) else base
        if not isinstance(base, Accelerator):
            raise TypeError(f"base: expected an Accelerator or a registered name, got {base!r}")
        self.hidden, self.steps, self.form = hidden, steps, form
        self.start, self.context, self.base = start, context, base
        self.construct()

    def build(self, signature: Signature) -> None:
        """Networks and buffers."""
        self.base = self.base.bind(signature)
        size = 1 if self.size_free else signature.size
        self.points = Standard(size)
        self.register_buffer("spread", torch.ones(size))
        self.build_networks(signature)
        self.uses_features = self.base.uses_features or self.start_uses_features

    spread: Tensor
    """(n,) root mean square of each coordinate of r: the coordinates' own scales, 1 on average. (1,) if size-free."""
    start_uses_features: bool = False

    @abstractmethod
    def build_networks(self, signature: Signature) -> None:
        """The networks of the kind."""

    @abstractmethod
    def begin(self, x0: Tensor, features: Tensor | None, metric: Tensor | None) -> tuple[Tensor, Tensor]:
        """(x_1, h_1)."""

    @abstractmethod
    def rest(self, x0: Tensor) -> Tensor:
        """A hidden state of zeros."""

    def units(self, hidden: Tensor) -> Tensor:
        """(n,) or (B, n) `spread`, or what stands in for it."""
        return self.spread

    def standardised(self, x: Tensor, units: Tensor) -> Tensor:
        """(B, n) x as a network sees it; `units` are those of `units`."""
        return self.points(x)

    @abstractmethod
    def correct(self, seen: Seen, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """((B, n) correction in units of `spread` and of the residual, next hidden)."""

    def fit(self, examples: Examples) -> None:
        """Input normalisation."""
        width = len(self.spread)
        self.points.fit(examples.x.reshape(-1, width))
        residual = examples.residual.flatten(0, 1)
        spread = direction(residual, size_of(residual)).reshape(-1, width).square().mean(0).sqrt()
        self.spread.copy_(spread + 1e-3 * spread.mean())

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, RecurrentState]:
        """(x_1, h_1) of Algorithm 1."""
        x, hidden = self.begin(x0, features, metric)
        x, base = self.base.init(x, features, metric)
        seen = torch.zeros_like(x0[:, 0], dtype=torch.int64)
        return x, RecurrentState(hidden, seen, torch.zeros_like(x0[:, :1]), base)

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> RecurrentState:
        """The base alone."""
        seen = torch.full_like(x0[:, 0], self.steps, dtype=torch.int64)
        return RecurrentState(self.rest(x0), seen, torch.zeros_like(x0[:, :1]), self.base.restart(x0, metric))

    def step(self, at: Evaluation, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """The base's step, corrected while there are steps left."""
        following, base = self.base.step(at, state.base)
        over = state.seen >= self.steps
        state = state._replace(seen=state.seen + 1, base=base)
        if is_readable(over) and bool(over.all()):
            return following, state
        spread = self.units(state.hidden).to(at.x.dtype)
        scaled = at.residual / spread
        size = size_of(scaled)
        first = torch.where(state.first > 0, state.first, size)
        seen = Seen(
            x=self.standardised(at.x, spread),
            residual=direction(scaled, size).to(self.spread.dtype),
            base=direction((following - at.fx) / spread, size).clamp(-10, 10).to(self.spread.dtype),
            decades=decades(size, first).to(self.spread.dtype),
        )
        correction, hidden = self.correct(seen, state.hidden)
        if self.form == "scaled":
            correction = correction / (size_of(correction) / REACH).clamp(min=1)
            corrected = following + size * spread * correction.to(at.x.dtype)
        else:
            corrected = following + (self.points.scale * correction).to(at.x.dtype)
        state = state._replace(
            hidden=where_rows(over, state.hidden, hidden), first=where_rows(over, state.first, first)
        )
        return where_rows(over, following, corrected), state


class Recurrent(Corrector):
    """A cell that sees the whole of x and r; the start and h_1 come from a `StartNetwork`."""

    @abstractmethod
    def cell_of(self, inputs: int) -> tuple[nn.Module, int]:
        """(cell, width of its state) for inputs of that width."""

    def build_networks(self, signature: Signature) -> None:
        """Start, encoder, cell and decoder."""
        n = signature.size
        self.encoder = nn.Sequential(nn.Linear(2 * n + 1, self.hidden), nn.SiLU())
        self.cell, width = self.cell_of(self.hidden)
        self.state_width = width
        self.decoder = nn.Linear(self.hidden, n)
        zero(self.decoder)
        self.start_network = StartNetwork(signature, self.hidden, width, self.context)
        self.start_uses_features = self.start_network.uses_features

    def fit(self, examples: Examples) -> None:
        """Input normalisation of updates and start."""
        super().fit(examples)
        self.start_network.fit(examples)

    def begin(self, x0: Tensor, features: Tensor | None, metric: Tensor | None) -> tuple[Tensor, Tensor]:
        """From the cold start and the features."""
        offset, hidden = self.start_network(x0, features)
        return (x0 + offset if self.start else x0), hidden

    def rest(self, x0: Tensor) -> Tensor:
        """(B, width of the cell's state)."""
        return self.spread.new_zeros(x0.shape[0], self.state_width)

    def correct(self, seen: Seen, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Encode, update, decode."""
        hidden = self.cell(self.encoder(torch.cat([seen.x, seen.residual, seen.decades], dim=1)), hidden)
        return self.decoder(hidden[:, : self.hidden]), hidden


class GRU(Recurrent):
    """Algorithm 1 with a gated recurrent unit: learned start, then learned corrections to every step.

    Its arguments are those of `Corrector`.
    """

    def cell_of(self, inputs: int) -> tuple[nn.Module, int]:
        """A GRU cell."""
        return GRUCell(inputs, self.hidden), self.hidden


class LSTM(Recurrent):
    """Algorithm 1 with a long short-term memory: learned start, then learned corrections to every step.

    Its arguments are those of `Corrector`.
    """

    def cell_of(self, inputs: int) -> tuple[nn.Module, int]:
        """An LSTM cell; its state holds h and c."""
        return LSTMCell(inputs, self.hidden), 2 * self.hidden


def size_of(t: Tensor) -> Tensor:
    """(B, 1) root mean square of the rows."""
    return length(t) / t.shape[1] ** 0.5
