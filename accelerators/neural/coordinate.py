"""One small cell shared by all coordinates: few parameters and training instances, good where coordinates are alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from accelerators.neural.networks import MLP, GRUCell, zero
from accelerators.neural.recurrent import Corrector, Seen
from accelerators.neural.start import StartInputs
from fixedpoint import Signature
from fixedpoint.learned import Examples

EMBEDDING = 6
"""Numbers learned for each coordinate, to tell those apart that are not alike."""


class CoordinateGRU(Corrector):
    """A small GRU cell works on every coordinate by itself and answers with a gain on r and an offset.

    It sees the coordinate's x, r and base step, the size of the residual and a learned embedding of the coordinate. The
    start adds to the cold start what a small network makes of its entry and the embedding. The arguments are those of
    `Corrector`; a `hidden` of 12 to 32 is enough, and the features are not looked at.
    """

    def __init__(
        self,
        signature: Signature | None = None,
        hidden: int = 16,
        steps: int = 20,
        form: str = "scaled",
        start: bool = True,
        base: object = "picard",
        seed: int = 0,
    ) -> None:
        super().__init__(signature, hidden, steps, form, start, False, base, seed)  # type: ignore[arg-type]

    def build_networks(self, signature: Signature) -> None:
        """Embeddings, start, cell and decoder."""
        self.embedding = nn.Parameter(0.3 * torch.randn(signature.size, EMBEDDING))
        self.inputs = StartInputs(signature, context=False)
        self.register_buffer("travelled", torch.ones(signature.size))
        self.start_network = MLP([1 + EMBEDDING, 2 * self.hidden, 1 + self.hidden])
        self.encoder = nn.Sequential(nn.Linear(4 + EMBEDDING, self.hidden), nn.SiLU())
        self.cell = GRUCell(self.hidden, self.hidden)
        self.decoder = nn.Linear(self.hidden, 2)
        zero(self.decoder)

    travelled: Tensor
    """(n,) how far the plain iteration travels."""

    def fit(self, examples: Examples) -> None:
        """Input normalisation of updates and start."""
        super().fit(examples)
        self.inputs.fit(examples)
        travelled = (examples.x - examples.x[0]).square().mean((0, 1)).sqrt()
        self.travelled.copy_(travelled + 1e-3 * travelled.mean())

    def begin(self, x0: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """From each entry of the cold start."""
        out = self.start_network(self._with_embedding(self.inputs(x0, None)[:, :, None]))
        hidden = torch.tanh(out[:, :, 1:])
        return (x0 + (out[:, :, 0] * self.travelled).to(x0.dtype) if self.start else x0), hidden

    def rest(self, batch: int) -> Tensor:
        """(B, n, hidden)."""
        return self.spread.new_zeros(batch, self.spread.shape[0], self.hidden)

    def correct(self, seen: Seen, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Every coordinate by itself: (B, n, inputs) -> gain and offset."""
        decades = seen.decades.expand_as(seen.x)
        z = self.encoder(self._with_embedding(torch.stack([seen.x, seen.residual, seen.base, decades], dim=2)))
        hidden = self.cell(z.flatten(0, 1), hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        gain, offset = self.decoder(hidden).unbind(2)
        return gain * seen.residual + offset, hidden

    def _with_embedding(self, z: Tensor) -> Tensor:
        return torch.cat([z, self.embedding.expand(z.shape[0], -1, -1)], dim=2)
