"""A safeguard around any accelerator: it may help, it cannot hurt for long.

The wrapper watches the residual norm of what the inner accelerator proposes. An instance has a budget of evaluations
that may fail to improve on its best residual: `allowance` to begin with, and `share` earned back by every evaluation
that improves. While the budget lasts, proposals are followed, ups and downs included; when it is spent, or when a
proposal is much worse than the best point or not finite, the instance goes back to the plain f(x) of its best point and
takes plain steps until it has earned the next trial. So an accelerator that never helps wastes at most
allowance + share * (improving evaluations), and the instance converges wherever the plain map does.

Sources of the idea: safeguarding by a residual budget in Zhang, O'Donoghue & Boyd (2020) and in Heaton et al. (2023);
the account of evaluations, which also bounds the cost, is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from accelerators.anderson import AndersonII
from fixedpoint import Accelerator, Evaluation, Signature, leaves
from fixedpoint import accelerators as registry
from fixedpoint.iterate import freeze
from fixedpoint.learned import rebuilt
from fixedpoint.settings import Setting


class SafeguardState(NamedTuple):
    """The account of each instance, beside the inner accelerator's state."""

    inner: Any
    fallback: Tensor
    """(B, n) f at the best point so far."""
    best: Tensor
    """(B,) residual norm at the best point; inf before the first evaluation."""
    budget: Tensor
    """(B,) evaluations that may still fail to improve."""
    proposed: Tensor
    """(B,) bool, whether the current point is a proposal of the inner accelerator."""
    metric: Tensor
    """(B, n) diagonal metric of the residual norm."""


class Safeguarded(nn.Module, Accelerator):
    """Follow `inner` while its budget lasts, else the plain map.

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

    tunable: ClassVar[Mapping[str, Setting]] = AndersonII.tunable  # of the default inner accelerator

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
        self.eval()
        self.laws = frozenset({"safeguarded"}) | inner.laws & {"scale-invariant", "rotation-invariant"}

    def bind(self, signature: Signature) -> Accelerator:
        """The inner accelerator bound."""
        inner = self.inner.bind(signature)
        return self if inner is self.inner else rebuilt(self, inner=inner)

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, SafeguardState]:
        """The inner start; the cold one where it is not finite."""
        x1, inner = self.inner.init(x0, features, metric)
        finite = torch.isfinite(x1).all(1)
        return torch.where(finite[:, None], x1, x0), SafeguardState(
            inner=inner,
            fallback=x0,
            best=torch.full_like(x0[:, 0], torch.inf),
            budget=torch.full_like(x0[:, 0], self.allowance),
            proposed=torch.zeros_like(finite),
            metric=torch.ones_like(x0) if metric is None else metric.expand_as(x0),
        )

    def step(self, at: Evaluation, state: SafeguardState) -> tuple[Tensor, SafeguardState]:
        """Settle the account of this evaluation, then follow the proposal or the plain map."""
        size = torch.sqrt((state.metric * at.residual * at.residual).sum(1))
        finite = torch.isfinite(size) & torch.isfinite(at.fx).all(1)
        improved = finite & (size < state.best)
        failed = state.proposed & ~improved
        budget = state.budget + torch.where(improved, self.share, 0.0) - torch.where(failed, 1.0, 0.0)
        best = torch.where(improved, size, state.best)
        fallback = torch.where(improved[:, None], at.fx, state.fallback)

        proposal, inner = self._propose(at, state.inner, finite)
        if self.training:
            return proposal, state._replace(inner=inner)
        rejected = ~finite | (state.proposed & (failed & (budget < 1) | (size > self.growth * state.best)))
        usable = ~rejected & (budget >= 1) & torch.isfinite(proposal).all(1)
        plain = torch.where(rejected[:, None], fallback, at.fx)
        following = torch.where(usable[:, None], proposal, plain)
        return following, SafeguardState(inner, fallback, best, budget, usable, state.metric)

    def _propose(self, at: Evaluation, state: Any, finite: Tensor) -> tuple[Tensor, Any]:
        """The inner step; instances at a point that is not finite keep their inner state."""
        proposal, stepped = self.inner.step(at, state)
        return proposal, leaves.transform(lambda old, new: freeze(~finite, old, new), state, stepped)
