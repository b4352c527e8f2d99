"""SCS's adaptive scale, one number per instance (section 4 of its algorithm page, `adaptive_diag_scale=0`)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maps.scs.iteration.residuals import KktNorms, largest_of

WAIT = 100
"""Evaluations between two changes, at least."""
BAND = 10**0.5
"""A factor inside [1/BAND, BAND] is not worth a factorization."""
LOW, HIGH = 1e-6, 1e6


class ScaleHistory(NamedTuple):
    """What the rule remembers of each instance, (B,) each."""

    scale: Tensor
    log_ratio: Tensor
    """Sum over checks since the last change of log(primal residual) - log(dual residual), both relative."""
    checks: Tensor
    waited: Tensor
    """Evaluations since the last change."""


def begin(scale: float, point: KktNorms) -> ScaleHistory:
    """The history after SCS's iteration 0, which ended at this point."""
    ratio = log_ratio(point)
    return ScaleHistory(torch.full_like(ratio, scale), ratio, torch.ones_like(ratio), torch.zeros_like(ratio))


def log_ratio(point: KktNorms) -> Tensor:
    """(B,) log of the relative primal residual over the relative dual residual."""
    primal, dual = (
        (violation / largest_of(*parts).clamp(min=1e-18)).clamp(min=1e-18)
        for violation, parts in (
            (point.primal, (point.Ax, point.s, point.b)),
            (point.dual, (point.Px, point.Aty, point.c)),
        )
    )
    return torch.log(primal) - torch.log(dual)


def update(history: ScaleHistory, point: KktNorms, evaluations: int) -> tuple[ScaleHistory, Tensor]:
    """(history after a check, which instances changed their scale (B,)).

    Args:
        history: before the check.
        point: the iterate at the check.
        evaluations: since the check before.
    """
    total, checks = history.log_ratio + log_ratio(point), history.checks + 1
    waited = history.waited + evaluations
    factor = torch.sqrt(torch.exp(total / checks))
    scale = (history.scale * factor).clamp(LOW, HIGH)
    outside = (factor > BAND) | (factor < 1 / BAND)
    changed = (waited >= WAIT) & outside & (scale != history.scale) & torch.isfinite(factor)
    zero = torch.zeros_like(total)
    return ScaleHistory(
        scale=torch.where(changed, scale, history.scale),
        log_ratio=torch.where(changed, zero, total),
        checks=torch.where(changed, zero, checks),
        waited=torch.where(changed, zero, waited),
    ), changed
