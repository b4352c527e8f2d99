"""Norms of the rows of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def infinity_norm(t: Tensor) -> Tensor:
    """(B,) infinity norm of the rows; 0 when they are empty (m = 0)."""
    return torch.maximum(t.amax(1), -t.amin(1)) if t.shape[1] else t.sum(1)
