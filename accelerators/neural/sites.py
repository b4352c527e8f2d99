"""One small cell shared by all sites: groups of coordinates that belong together, as the parts of a matrix's entry do.

A conic program often holds the same thing several times: robust PCA has every entry of the matrix once as a part of L
and once as a part of S, and what is to be done about the one depends on the other. Where coordinates are alike but come
in such groups, a cell that sees the whole group can do what one for single coordinates cannot, at half the cost.

Where the sites make a grid, as the entries of a matrix do, a site sees the mean hidden state of its row and of its
column too: the exchangeable layers of Hartford et al., "Deep models of interactions across sets" (2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from accelerators.neural.networks import MLP, GRUCell, zero
from accelerators.neural.recurrent import Corrector, Seen
from accelerators.neural.start import StartInputs
from fixedpoint import Signature
from fixedpoint.learning.learned import Examples, require_counts


class SiteGRU(Corrector):
    """A small GRU cell works on every site by itself and answers with a matrix of gains on the site's r and offsets.

    With the heads left out, the other coordinates come in blocks of as many as there are sites, and site i has the i-th
    of each block. A site sees x, r and base step of its coordinates and of the heads, the size of the residual, and
    mean hidden states of the sites. The start adds to the cold start what a small network makes of a site's entries. No
    site is told from another: any order of them (in a grid: of rows, of columns) is as good, and few instances do.

    Args:
        signature, hidden, steps, form, start, base, seed: as in `Corrector`.
        shape: of the grid of sites, its last axis running fastest; empty: every coordinate is a site.
        heads: coordinates that belong to no site, in ascending order; their step is corrected too, their start is not.

    Raises:
        ValueError: an argument outside its range, or that does not fit the map; TypeError: `base` is no accelerator.
    """

    travelled: Tensor
    """(n,) how far the plain iteration travels."""
    order: Tensor
    """(n,) int64 the heads, then the others."""

    def __init__(
        self,
        signature: Signature | None = None,
        hidden: int = 24,
        steps: int = 20,
        form: str = "scaled",
        start: bool = True,
        base: object = "picard",
        seed: int = 0,
        shape: Sequence[int] = (),
        heads: Sequence[int] = (),
    ) -> None:
        if not isinstance(shape, Sequence):
            raise ValueError(f"shape: expected whole numbers >= 1, got {shape!r}")
        for length in shape:
            require_counts(shape=length)
        if (
            not isinstance(heads, Sequence)
            or not all(_is_index(head) for head in heads)
            or list(heads) != sorted(set(heads))
        ):
            raise ValueError(f"heads: expected ascending whole numbers >= 0, got {heads!r}")
        self.shape, self.heads = list(shape), list(heads)
        super().__init__(signature, hidden, steps, form, start, False, base, seed)  # type: ignore[arg-type]

    def build_networks(self, signature: Signature) -> None:
        """Start, encoder, cell and decoders."""
        heads = len(self.heads)
        if heads and self.heads[-1] >= signature.size:
            raise ValueError(f"heads: expected coordinates below {signature.size}, got {self.heads[-1]}")
        rest = sorted(set(range(signature.size)) - set(self.heads))
        self.grid = self.shape or [len(rest)]
        self.count = math.prod(self.grid)
        if not rest or len(rest) % self.count:
            raise ValueError(f"shape: {len(rest)} coordinates do not make {self.grid} equal sites")
        lanes = len(rest) // self.count
        self.register_buffer("order", torch.tensor([*self.heads, *rest]))
        self.inputs = StartInputs(signature, context=False)
        self.register_buffer("travelled", torch.ones(signature.size))
        self.start_network = MLP([lanes + heads, 2 * self.hidden, lanes + self.hidden])
        width = 3 * (lanes + heads) + 1 + self.hidden * (1 + len(self.axes))
        self.encoder = nn.Sequential(
            nn.Linear(width, self.hidden), nn.SiLU(), nn.Linear(self.hidden, self.hidden), nn.SiLU()
        )
        self.cell = GRUCell(self.hidden, self.hidden)
        self.decoder = nn.Linear(self.hidden, lanes * (lanes + 1))
        zero(self.decoder)
        if heads:
            self.head_decoder = nn.Linear(self.hidden, heads * (heads + 1))
            zero(self.head_decoder)

    @property
    def axes(self) -> range:
        """Of a grid (B, *shape, k) those that means are taken for; none where it has but one."""
        return range(1, len(self.grid) + 1) if len(self.grid) > 1 else range(0)

    def fit(self, examples: Examples) -> None:
        """Input normalisation of updates and start."""
        super().fit(examples)
        self.inputs.fit(examples)
        travelled = (examples.x - examples.x[0]).square().mean((0, 1)).sqrt()
        self.travelled.copy_(travelled + 1e-3 * travelled.mean())

    def apart(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) -> heads (B, heads), sites (B, sites, lanes)."""
        heads, rest = t[:, self.order].split([len(self.heads), t.shape[1] - len(self.heads)], 1)
        return heads, rest.unflatten(1, (-1, self.count)).mT

    def together(self, heads: Tensor, sites: Tensor) -> Tensor:
        """The inverse of `apart`."""
        joined = torch.cat([heads, sites.mT.flatten(1)], 1)
        return torch.empty_like(joined).index_copy(1, self.order, joined)

    def begin(self, x0: Tensor, features: Tensor | None, metric: Tensor | None) -> tuple[Tensor, Tensor]:
        """From the sites' entries of the cold start."""
        heads, sites = self.apart(self.inputs(x0, None))
        out = self.start_network(torch.cat([sites, heads[:, None].expand(-1, self.count, -1)], 2))
        offset, hidden = out.split([sites.shape[2], self.hidden], 2)
        moved = self.together(torch.zeros_like(heads), offset) * self.travelled
        return (x0 + moved.to(x0.dtype) if self.start else x0), torch.tanh(hidden)

    def rest(self, x0: Tensor) -> Tensor:
        """(B, sites, hidden)."""
        return self.spread.new_zeros(len(x0), self.count, self.hidden)

    def pooled(self, hidden: Tensor) -> list[Tensor]:
        """(B, sites, hidden) means over the sites that share an index, for each axis of the grid."""
        grid = hidden.unflatten(1, self.grid)
        means = [grid.mean([other for other in self.axes if other != axis], keepdim=True) for axis in self.axes]
        return [mean.expand_as(grid).flatten(1, -2) for mean in means]

    def correct(self, seen: Seen, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Every site by itself; the heads from the mean hidden state."""
        heads, sites = zip(*(self.apart(t) for t in (seen.residual, seen.x, seen.base)), strict=True)
        common = torch.cat([*heads, seen.decades, hidden.mean(1)], 1)
        z = self.encoder(torch.cat([*sites, common[:, None].expand(-1, self.count, -1), *self.pooled(hidden)], 2))
        hidden = self.cell(z.flatten(0, 1), hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        moved = _answer(self.decoder(hidden), sites[0])
        above = _answer(self.head_decoder(hidden.mean(1)), heads[0]) if self.heads else heads[0]
        return self.together(above, moved), hidden


def _answer(said: Tensor, residual: Tensor) -> Tensor:
    """(..., k) offsets, and gains times the residual (..., k), from k + k * k numbers."""
    k = residual.shape[-1]
    return said[..., :k] + (said[..., k:].unflatten(-1, (k, k)) @ residual[..., None])[..., 0]


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
