"""A safeguard around any accelerator: it may help, it cannot hurt for long.

The account. The wrapper watches the residual norm of what the inner accelerator proposes. An instance has a budget of
evaluations that may fail to improve on its best residual: `allowance` to begin with, and `share` earned back by every
evaluation that improves. While the budget lasts, proposals are followed, ups and downs included; when it is spent, or
when a proposal is much worse than the best point or not finite, the instance goes back to the plain f(x) of its best
point and takes plain steps until it has earned the next trial. So an accelerator that never helps wastes at most
allowance + share * (improving evaluations), and the instance converges wherever the plain map does.

The gate. A learned start or step can do harm that no later residual shows: a bad start far along a slow direction is
plain progress from then on. So while an accelerator's learned parts have their say (`Accelerator.learned_steps`), every
residual must be about what it was in training, in itself and relative to the first one; where it is not, the instance
goes back to its cold start and on from there as if nothing had been learned. What is usual is measured by `calibrate`
after training and kept with the weights; on a map of another size, where a size-free accelerator may be at work, only
the size of the first residual is. An accelerator that was never calibrated is trusted while the residual falls
by `DOUBT` with every evaluation, from that of the cold start, which is evaluated first.

Sources of the idea: safeguarding by a residual budget in Zhang, O'Donoghue & Boyd (2020) and in Heaton et al. (2023);
the account of evaluations, which also bounds the cost, and the gate are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from accelerators.anderson import AndersonII
from fixedpoint import Accelerator, Evaluation, Signature
from fixedpoint import accelerators as registry
from fixedpoint.learning.learned import rebuilt
from fixedpoint.search_space import SearchSpace
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import any_row, finite_rows, is_readable, where_rows

MARGIN, PATIENCE = 1.5, 1.1
"""How far above the largest residual of the calibration one may be at first, and by how much farther with every
evaluation: the later an instance is sent back, the more that costs."""
DOUBT = 0.7
"""Factor by which the residual must fall with every evaluation that an uncalibrated accelerator has a say in."""


class SafeguardState(NamedTuple):
    """The account of each instance, beside the inner accelerator's state."""

    inner: Any
    cold_start: Tensor
    """(B, n) the cold start; f there once it was evaluated."""
    start: Tensor
    """(B, n) the inner start."""
    fallback: Tensor
    """(B, n) f at the best point so far."""
    best: Tensor
    """(B,) residual norm at the best point; inf before the first evaluation."""
    budget: Tensor
    """(B,) evaluations that may still fail to improve."""
    proposed: Tensor
    """(B,) bool, whether the current point is a proposal of the inner accelerator."""
    seen: Tensor
    """(B,) int64, evaluations since the inner start; -1 while the cold start is evaluated first. Beyond the trial: the
    gate is behind."""
    first: Tensor
    """(B,) residual norm at the first evaluation, of the cold start where that came first; inf before it."""
    metric: Tensor
    """(B, n) diagonal metric of the residual norm."""


class Safeguarded(nn.Module, Accelerator):
    """Follow `inner` while its budget lasts and its learned parts behave as in training, else the plain map.

    Args:
        inner: an accelerator, or the registered name of one (then `options` are its arguments).
        allowance: evaluations that may fail to improve before the first rejection, > 0.
        share: budget earned per improving evaluation, in (0, 1).
        growth: a proposal whose residual norm exceeds `growth` times the best is rejected at once, > 1.

    It is a module so that the weights of a learned `inner` are its own. In training mode (`train()`, see
    `torch.nn.Module`) it stands aside and follows every proposal, so that all of them get a gradient; as made and as
    loaded it is in evaluation mode.

    Raises:
        ValueError: an argument outside its range; TypeError: `inner` is no accelerator.
    """

    tunable: ClassVar[Mapping[str, SearchSpace]] = AndersonII.tunable  # of the default inner accelerator
    usual: Tensor
    """(2, trial + 1) the largest residual norms of the calibration, evaluation by evaluation, and the largest relative
    to the instance's first; negative before it."""

    def __init__(
        self,
        inner: Accelerator | str = "anderson-2",
        *,
        allowance: float = 5.0,
        share: float = 0.1,
        growth: float = 10.0,
        **options: Any,
    ) -> None:
        if isinstance(inner, str):
            inner = registry.create(inner, **options)
        elif options:
            raise ValueError(f"{sorted(options)}: options belong to an inner accelerator given by name")
        if not isinstance(inner, Accelerator):
            raise TypeError(f"inner: expected an Accelerator or a registered name, got {inner!r}")
        for name, value, low, high in (
            ("allowance", allowance, 0.0, float("inf")),
            ("share", share, 0.0, 1.0),
            ("growth", growth, 1.0, float("inf")),
        ):
            if not low < value < high:
                raise ValueError(f"{name}: expected a number in ({low:g}, {high:g}), got {value}")
        super().__init__()
        self.inner, self.allowance, self.share, self.growth = inner, allowance, share, growth
        self.signature, self.uses_features = inner.signature, inner.uses_features
        self.learned_steps = inner.learned_steps
        self.promises = frozenset({"safeguarded"}) | inner.promises & {"scale-invariant", "rotation-invariant"}
        if inner.learned_steps is not None:
            self.register_buffer("usual", torch.full((2, inner.learned_steps + 1), -1.0, dtype=torch.float64))
        self.eval()

    def bind(self, signature: Signature) -> Accelerator:
        """The inner accelerator bound."""
        inner = self.inner.bind(signature)
        return self if inner is self.inner else rebuilt(self, inner=inner)

    def calibrate(self, sizes: Tensor) -> None:
        """Take note of what is usual: residual norms (T, N) of N instances, evaluation by evaluation, T > trial."""
        if self.inner.learned_steps is not None:
            sizes = sizes[: self.inner.learned_steps + 1].nan_to_num(posinf=torch.finfo(sizes.dtype).max ** 0.5)
            first = torch.where(sizes[:1] > 0, sizes[:1], torch.ones_like(sizes[:1]))
            self.usual.copy_(torch.stack([sizes.amax(1), (sizes / first).amax(1)]))

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, SafeguardState]:
        """The inner start; the cold one where it is not finite, and first of all for an uncalibrated accelerator."""
        x1, inner = self.inner.init(x0, features, metric)
        seen = torch.zeros_like(x0[:, 0], dtype=torch.int64)
        start = where_rows(torch.isfinite(x1).all(1), x1, x0)
        if self.inner.learned_steps is not None and not self.training:
            seen = torch.where(self._usual(x0)[0, 0] < 0, seen - 1, seen)
        return where_rows(seen < 0, x0, start), self._account_of(x0, start, inner, seen, metric)

    def _usual(self, x: Tensor) -> Tensor:
        """`usual`; on a map of another size (its pace is unknown) the first residual's, per coordinate, throughout."""
        if self.signature is None or self.signature.size == x.shape[1]:
            return self.usual
        sizes = self.usual[:1, :1].expand(1, self.usual.shape[1]) * (x.shape[1] / self.signature.size) ** 0.5
        return torch.cat([sizes, torch.full_like(sizes, torch.finfo(sizes.dtype).max ** 0.5)])

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> SafeguardState:
        """With the inner one cold, and the gate behind."""
        inner = self.inner.restart(x0, metric)
        beyond = torch.full_like(x0[:, 0], 1 + (self.inner.learned_steps or 0), dtype=torch.int64)
        return self._account_of(x0, x0, inner, beyond, metric)

    def _account_of(self, x0: Tensor, start: Tensor, inner: Any, seen: Tensor, metric: Tensor | None) -> SafeguardState:
        """The state before the first evaluation."""
        infinite = torch.full_like(x0[:, 0], torch.inf)
        return SafeguardState(
            inner=inner,
            cold_start=x0,
            start=start,
            fallback=x0,
            best=infinite,
            budget=torch.full_like(infinite, self.allowance),
            proposed=torch.zeros_like(seen, dtype=torch.bool),
            seen=seen,
            first=infinite.clone(),
            metric=torch.ones_like(x0) if metric is None else metric.expand_as(x0),
        )

    def step(self, at: Evaluation, state: SafeguardState) -> tuple[Tensor, SafeguardState]:
        """Follow the proposal or the plain map, as the account says; while there is a trial, as the gate says."""
        size = torch.sqrt((state.metric * at.residual * at.residual).sum(1))
        finite = torch.isfinite(size)  # and so f(x), since x was
        proposal, inner = self.inner.step(at, state.inner)
        if any_row(~finite):  # nothing is learned from such a point
            inner = pytrees.transform(partial(where_rows, ~finite), state.inner, inner)
        before, state = state, state._replace(inner=inner)
        if self.training:
            return proposal, state
        following, settled = self._account(at, state, size, finite, proposal)
        last = -1 if self.inner.learned_steps is None else self.inner.learned_steps
        if self.inner.learned_steps is None or (is_readable(state.seen) and bool((state.seen > last).all())):
            return following, settled
        return self._gate(at, before, size, proposal, following, settled)

    def _account(
        self, at: Evaluation, state: SafeguardState, size: Tensor, finite: Tensor, proposal: Tensor
    ) -> tuple[Tensor, SafeguardState]:
        """The next point and state by the account alone."""
        improved = finite & (size < state.best)
        failed = state.proposed & ~improved
        budget = state.budget + torch.where(improved, self.share, 0.0) - torch.where(failed, 1.0, 0.0)
        fallback = where_rows(improved, at.fx, state.fallback)
        rejected = ~finite | (state.proposed & (failed & (budget < 1) | (size > self.growth * state.best)))
        usable = ~rejected & (budget >= 1) & finite_rows(proposal)
        following = proposal
        if any_row(~usable):
            following = where_rows(usable, proposal, where_rows(rejected, fallback, at.fx))
        return following, state._replace(
            fallback=fallback,
            best=torch.where(improved, size, state.best),
            budget=budget,
            proposed=usable,
            seen=state.seen + 1,
        )

    def _gate(
        self,
        at: Evaluation,
        before: SafeguardState,
        size: Tensor,
        proposal: Tensor,
        following: Tensor,
        settled: SafeguardState,
    ) -> tuple[Tensor, SafeguardState]:
        """The same for instances whose trial is not over; the others are settled already."""
        last = self.usual.shape[1] - 1
        door, beyond = before.seen < 0, before.seen > last
        usual, relative = self._usual(at.x)[:, before.seen.clamp(0, last)].to(size.dtype)
        calibrated = usual >= 0
        doubt = before.first * DOUBT ** (before.seen + 1).to(size.dtype)
        margin = MARGIN * PATIENCE ** before.seen.to(size.dtype)
        limit = torch.where(calibrated, margin * torch.minimum(usual, relative * before.first), doubt)
        failed = ~door & ~beyond & ~(size <= limit)
        untouched = ~door & ~failed

        following = where_rows(beyond, following, where_rows(finite_rows(proposal), proposal, at.fx))
        settled = settled._replace(
            budget=torch.where(beyond, settled.budget, self.allowance),
            proposed=torch.where(beyond, settled.proposed, untouched & (before.seen == last)),
            first=torch.where(torch.isinf(before.first), size, before.first),
        )
        if any_row(door):
            following = where_rows(door, before.start, following)
            settled = settled._replace(
                inner=pytrees.transform(partial(where_rows, door), before.inner, settled.inner),
                cold_start=where_rows(door, at.fx, before.cold_start),
            )
        if any_row(failed):
            following = where_rows(failed, before.cold_start, following)
            fresh = self.inner.restart(before.cold_start, before.metric)
            settled = settled._replace(
                inner=pytrees.transform(partial(where_rows, failed), fresh, settled.inner),
                fallback=where_rows(failed, before.cold_start, settled.fallback),
                best=torch.where(failed, torch.where(calibrated, torch.inf, before.first), settled.best),
                seen=torch.where(failed, last + 1, settled.seen),
            )
        return following, settled
