"""Gradients that cannot be trusted are said to be so, by the number of their instance in the batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

TRUSTED_RESIDUAL = 1e-6
"""Largest relative residual of the adjoint system that gives no warning (float64; 1e-4 in float32)."""


class AdjointWarning(UserWarning):
    """A gradient that cannot be trusted: the adjoint system is (nearly) singular, or x is no fixed point."""


_FIRST: ContextVar[int] = ContextVar("_FIRST", default=0)


@contextmanager
def numbered_from(first: int) -> Iterator[None]:
    """Warnings in here are about rows of a chunk: its first one is instance `first` of the batch."""
    before = _FIRST.set(first)
    try:
        yield
    finally:
        _FIRST.reset(before)


def warn_untrusted(residual: Tensor) -> None:
    """Warn, naming the instances, when an adjoint residual (B,) is too large for the gradient to mean much."""
    limit = TRUSTED_RESIDUAL if residual.dtype == torch.float64 else 1e-4
    warn_instances(~(residual <= limit), f"the adjoint system was solved only to {float(residual.max()):.1e}")


def warn_instances(bad: Tensor, reason: str) -> None:
    """Warn that the implicit gradient of the instances in `bad` (B,) cannot be trusted."""
    if bool(bad.any()):
        rows = (_FIRST.get() + torch.nonzero(bad).flatten()).tolist()
        warnings.warn(
            f"implicit gradient of instance(s) {_listed(rows)} cannot be trusted: {reason} "
            "(a degenerate fixed point, or one that was not reached)",
            AdjointWarning,
            stacklevel=3,
        )


def _listed(items: list[int], most: int = 8) -> str:
    shown = ", ".join(str(i) for i in items[:most])
    return shown if len(items) <= most else f"{shown}, ... ({len(items)} in all)"
