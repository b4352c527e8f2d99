"""One small cell shared by all coordinates: few parameters and training instances, good where coordinates are alike.

What tells coordinates apart is either learned, an embedding of each, and then the accelerator belongs to maps of one
size; or it is the map's metric alone, whose entries mean the same at every size (SCS's: the kind of row), and then
nothing has the size of the map and what was trained at one size serves them all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from accelerators.neural.networks import MLP, GRUCell, direction, zero
from accelerators.neural.recurrent import Corrector, Seen, size_of
from accelerators.neural.start import StartInputs
from fixedpoint import Signature
from fixedpoint.learning.learned import Examples

EMBEDDING = 6
"""Numbers learned for each coordinate, to tell those apart that are not alike."""


class CoordinateGRU(Corrector):
    """A small GRU cell works on every coordinate by itself and answers with a gain on r and an offset.

    It sees the coordinate's x, r and base step, the size of the residual and a learned embedding of the coordinate. The
    start adds to the cold start what a small network makes of its entry and the embedding. The arguments are those of
    `Corrector`; a `hidden` of 12 to 32 is enough, and the features are not looked at.

    Args:
        signature, hidden, steps, form, start, base, seed: as in `Corrector`.
        embedding_size: numbers learned for each coordinate, >= 0. With 0 coordinates are told apart by the map's metric
            and measured in its units, instance by instance; then it is `size_free`, unless the base is not.

    Raises:
        ValueError: an argument outside its range; TypeError: `base` is no accelerator.
    """

    travelled: Tensor
    """(n,) how far the plain iteration travels."""

    def __init__(
        self,
        signature: Signature | None = None,
        hidden: int = 16,
        steps: int = 20,
        form: str = "scaled",
        start: bool = True,
        base: object = "picard",
        seed: int = 0,
        embedding_size: int = EMBEDDING,
    ) -> None:
        if isinstance(embedding_size, bool) or not isinstance(embedding_size, int) or embedding_size < 0:
            raise ValueError(f"embedding_size: expected a whole number >= 0, got {embedding_size!r}")
        self.embedding_size = embedding_size
        super().__init__(signature, hidden, steps, form, start, False, base, seed)  # type: ignore[arg-type]

    @property
    def size_free(self) -> bool:  # type: ignore[override]
        """Whether it has neither embeddings nor a base of one size."""
        return self.embedding_size == 0 and (self.base.signature is None or getattr(self.base, "size_free", False))

    def build_networks(self, signature: Signature) -> None:
        """Embeddings, start, cell and decoder."""
        marks = self.embedding_size or 1
        if self.embedding_size:
            self.embedding = nn.Parameter(0.3 * torch.randn(signature.size, marks))
            self.inputs = StartInputs(signature, context=False)
            self.register_buffer("travelled", torch.ones(signature.size))
        self.start_network = MLP([1 + marks, 2 * self.hidden, 1 + self.hidden])
        self.encoder = nn.Sequential(nn.Linear(4 + marks, self.hidden), nn.SiLU())
        self.cell = GRUCell(self.hidden, self.hidden)
        self.decoder = nn.Linear(self.hidden, 2)
        zero(self.decoder)

    def fit(self, examples: Examples) -> None:
        """Input normalisation of updates and start."""
        super().fit(examples)
        if self.embedding_size:
            self.inputs.fit(examples)
            travelled = (examples.x - examples.x[0]).square().mean((0, 1)).sqrt()
            self.travelled.copy_(travelled + 1e-3 * travelled.mean())

    def begin(self, x0: Tensor, features: Tensor | None, metric: Tensor | None) -> tuple[Tensor, Tensor]:
        """From each entry of the cold start."""
        if self.embedding_size:
            marks, seen, reach = self.embedding.expand(len(x0), -1, -1), self.inputs(x0, None), self.travelled
        else:
            marks = _decades_of_units(x0, metric).to(self.spread.dtype)[:, :, None]
            units = self.units(marks).to(x0.dtype)
            seen, reach = self.standardised(x0, units), size_of(x0 / units) * units
        out = self.start_network(torch.cat([seen[:, :, None], marks], dim=2))
        x = x0 + (out[:, :, 0] * reach).to(x0.dtype) if self.start else x0
        hidden = torch.tanh(out[:, :, 1:])
        return x, hidden if self.embedding_size else torch.cat([hidden, marks], dim=2)

    def rest(self, x0: Tensor) -> Tensor:
        """(B, n, width of the state)."""
        return self.spread.new_zeros(*x0.shape, self.hidden if self.embedding_size else self.hidden + 1)

    def units(self, hidden: Tensor) -> Tensor:
        """`spread`, or (B, n) those of the metric, whose decades the state carries along."""
        return self.spread if self.embedding_size else 10 ** hidden[:, :, -1]

    def standardised(self, x: Tensor, units: Tensor) -> Tensor:
        """(B, n) x, free of units."""
        if self.embedding_size:
            return super().standardised(x, units)
        x = x / units
        return direction(x, size_of(x)).nan_to_num().clamp(-10, 10).to(self.spread.dtype)

    def correct(self, seen: Seen, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Every coordinate by itself: (B, n, inputs) -> gain and offset."""
        known = self.embedding.expand(len(hidden), -1, -1) if self.embedding_size else hidden[:, :, self.hidden :]
        decades = seen.decades.expand_as(seen.x)
        entries = torch.stack([seen.x, seen.residual, seen.base, decades], dim=2)
        z = self.encoder(torch.cat([entries, known], dim=2))
        kept = hidden[:, :, : self.hidden]
        kept = self.cell(z.flatten(0, 1), kept.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        gain, offset = self.decoder(kept).unbind(2)
        hidden = kept if self.embedding_size else torch.cat([kept, known], dim=2)
        return gain * seen.residual + offset, hidden


def _decades_of_units(x0: Tensor, metric: Tensor | None) -> Tensor:
    """(B, n) log10 of the units in which the metric is about the Euclidean norm; 0 without one."""
    if metric is None:
        return torch.zeros_like(x0)
    decades = -0.5 * torch.log10(metric.expand_as(x0))
    return decades - decades.mean(1, keepdim=True)
