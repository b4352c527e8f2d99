"""Anderson acceleration with learned secant pairs: what all instances have in common need not be found anew by each.

Anderson acceleration of type II explains the residual r by differences dr of its own history and takes the matching
differences df of f off f(x). At first that history is empty. Here p pairs (dr_j, df_j), shared by all instances, stand
beside it:

    minimise over gamma, delta   || r - Y gamma - D delta ||_W^2 + ridges
    x+ = f(x) - (S + Y) gamma - F delta + g * (r - Y gamma - D delta)

Every column counts by its direction only and every ridge is relative to its length, so that delta, and with it what the
pairs do, shrinks with r: they set no floor to the error. A large ridge switches a pair off; every pair has a learned
one for every evaluation, since pairs that are about right help while the history is short and mislead later. The pairs
start as the principal secants of plain iterations and are trained through the accelerated one. g, a gain for each
coordinate and evaluation on what nobody could explain, is Anderson's relaxation, learned; it starts at zero.

W is the map's metric. Given delta, gamma is `AndersonII`'s own answer to r - D delta, with its refinement. Per
evaluation that takes three products (B, n) x (n, p) and a Cholesky factor of order m + p.

Learned secants for conic programs are our own; initialising a quasi-Newton history from other solves goes back to
recycling in Krylov methods (Parks et al. 2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from accelerators.anderson import AndersonII, AndersonState, roots, rows_times
from accelerators.neural.networks import direction, length
from fixedpoint import Evaluation, Signature
from fixedpoint.learning.learned import Examples, Learned, require_counts
from fixedpoint.search_space import SearchSpace
from fixedpoint.tensors.masks import any_row, finite_rows, is_readable, where_rows

RIDGE = 1.0
"""Ridge of a pair before training, relative to its squared length."""
DECADES = 4.0
"""Of the ridge, when its parameter moves by 1: weights of networks move by less in a training."""


class SecantsState(NamedTuple):
    """The history of each instance, and its inner products with the learned pairs."""

    anderson: AndersonState
    shared: Tensor
    """(B, p, p) D' W D."""
    cross: Tensor
    """(B, m, p) Y' W D."""
    against: Tensor
    """(B, p) D' W r of the last evaluation."""
    seen: Tensor
    """(B,) int64, evaluations seen."""


class Secants(Learned):
    """Anderson acceleration of type II whose least squares have `pairs` learned secants beside the history.

    Untrained and not fitted, or beyond `steps`, it is `AndersonII` with the same memory.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        memory: differences kept, as `AndersonII`.
        start: plain evaluations before the history begins, as `AndersonII`.
        pairs: p, learned secants.
        steps: evaluations in which they, and the gains, take part.
        seed: of what is random in the fit.

    Raises:
        ValueError: an argument outside its range.
    """

    uses_features = False
    learns_from_others: ClassVar[bool] = True
    tunable: ClassVar[Mapping[str, SearchSpace]] = AndersonII.tunable
    promises = frozenset({"scale-invariant"})

    units: Tensor
    """(2, n) root mean square of each coordinate of dr and df, so that the parameters are about 1 in size."""

    def __init__(
        self,
        signature: Signature | None = None,
        memory: int = 10,
        start: int = 0,
        pairs: int = 16,
        steps: int = 20,
        seed: int = 0,
    ) -> None:
        require_counts(pairs=pairs, steps=steps)
        super().__init__(signature, seed)
        self.memory, self.start, self.pairs, self.steps = memory, start, pairs, steps
        self.anderson = AndersonII(memory=memory, start=start)
        self.construct()

    def build(self, signature: Signature) -> None:
        """The pairs, zero, their ridges and the gains."""
        self.secants = nn.Parameter(torch.zeros(2, self.pairs, signature.size))
        self.gain = nn.Parameter(torch.zeros(self.steps, signature.size))
        self.log_ridge = nn.Parameter(torch.zeros(self.steps, self.pairs))
        self.register_buffer("units", torch.ones(2, signature.size))

    def fit(self, examples: Examples) -> None:
        """Take the principal secants of the plain iterations, each a direction dr with the df that belongs to it."""
        if len(examples.x) < 2:
            return  # no differences
        points = torch.stack([examples.residual, examples.x + examples.residual])
        differences = (points[:, 1:] - points[:, :-1]).flatten(1, 2)  # (2, N, n)
        differences = direction(differences, length(differences[0]) / differences.shape[2] ** 0.5)
        units = differences.square().mean(1).sqrt()
        units = (units + 1e-3 * units.mean(1, keepdim=True)).clamp(min=1e-12)
        dr, df = differences / units[:, None]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            wanted = min(self.pairs, *dr.shape)
            left, values, right = torch.svd_lowrank(dr, q=min(wanted + 8, *dr.shape), niter=8)
        kept = values[:wanted] > 1e-6 * values[0]
        scale = torch.where(kept, dr.shape[1] ** 0.5 / values[:wanted].clamp(min=1e-300), 0.0)
        with torch.no_grad():
            self.units.copy_(units)
            self.secants.zero_()
            self.secants[0, :wanted] = (scale * values[:wanted])[:, None] * right.mT[:wanted]
            self.secants[1, :wanted] = scale[:, None] * (left.mT[:wanted] @ df)

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, SecantsState]:
        """Anderson's, with the inner products of the pairs."""
        x, anderson = self.anderson.init(x0, features, metric)
        return x, self._state(anderson, seen=0)

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> SecantsState:
        """Anderson alone."""
        return self._state(self.anderson.restart(x0, metric), seen=self.steps)

    def _state(self, anderson: AndersonState, seen: int) -> SecantsState:
        dr = self._pairs(anderson.x.dtype)[0]
        batch, p = len(anderson.x), self.pairs
        return SecantsState(
            anderson=anderson,
            shared=(anderson.metric @ (dr[:, None] * dr).flatten(0, 1).mT).unflatten(1, (p, p)),
            cross=anderson.x.new_zeros(batch, self.memory, p),
            against=anderson.x.new_zeros(batch, p),
            seen=torch.full_like(anderson.seen, seen),
        )

    def step(self, at: Evaluation, state: SecantsState) -> tuple[Tensor, SecantsState]:
        """Take off what the pairs explain, then Anderson's step."""
        anderson = self.anderson.record(at, state.anderson)
        over = state.seen >= self.steps
        state = state._replace(anderson=anderson, seen=state.seen + 1)
        if is_readable(over) and bool(over.all()):
            return self.anderson.extrapolate(at, anderson, 1.0), state
        dr, df = self._pairs(at.x.dtype)
        against = (anderson.metric * at.residual) @ dr.mT
        early = (anderson.seen - 1 <= self.start)[:, None]
        newest = torch.where(early, 0.0, against - state.against)
        place = torch.arange(len(newest), device=newest.device), self.anderson.slot(anderson.seen - 1)
        state = state._replace(cross=state.cross.index_put(place, newest), against=against)
        delta = self._shares(at.residual, state, against)
        delta = torch.where(over[:, None] | ~finite_rows(delta)[:, None], 0.0, delta)
        rest = Evaluation(at.x, at.fx - delta @ df, at.residual - delta @ dr)
        gain = self.gain[(state.seen - 1).clamp(max=self.steps - 1)].to(at.x.dtype)
        if any_row(over):
            gain = where_rows(over, torch.zeros_like(gain), gain)
        return self.anderson.extrapolate(rest, anderson, 1 + gain), state

    def _pairs(self, dtype: torch.dtype) -> Tensor:
        """(2, p, n) dr and df."""
        return (self.secants * self.units[:, None]).to(dtype)

    def _shares(self, residual: Tensor, state: SecantsState, against: Tensor) -> Tensor:
        """(B, p) delta: the pairs' part of the joint least squares."""
        anderson = state.anderson
        own = rows_times(anderson.dr, anderson.metric * residual)
        upper, lower = (anderson.gram, state.cross), (state.cross.mT, state.shared)
        gram = torch.cat([torch.cat(upper, dim=2), torch.cat(lower, dim=2)], dim=1)
        size = roots(gram.diagonal(dim1=1, dim2=2))
        now = RIDGE * 10 ** (DECADES * self.log_ridge[(state.seen - 1).clamp(max=self.steps - 1)].to(gram.dtype))
        least = max(self.anderson.regularization, 16 * torch.finfo(gram.dtype).eps)
        ridge = torch.cat([torch.full_like(own, least), now], dim=1)
        solve = self.anderson.solver(gram / size[:, :, None] / size[:, None, :] + torch.diag_embed(ridge))
        return (solve(torch.cat([own, against], dim=1) / size) / size)[:, self.memory :]
