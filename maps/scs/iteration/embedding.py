"""The homogeneous embedding's own variable: tau after the linear half of a step."""

from __future__ import annotations

import torch
from torch import Tensor


def tau_tilde(step: Tensor, p: Tensor, eta: Tensor, weighted: Tensor, curvature: Tensor, weight: Tensor) -> Tensor:
    """(B, 1) tau~: the larger root of a tau^2 + b tau + c = 0, without cancellation.

    With the state (mu, eta), p = K^{-1} (R_x mu_x, -R_y mu_y), g = K^{-1} (c, -b) and inner products in the metric R:
    a = tau_factor + <g, g>, b = <mu - 2 p, g> - tau_factor eta, c = <p, p - mu>.

    Args:
        step: (B, n + m) p - mu.
        p: (B, n + m).
        eta: (B, 1).
        weighted: (B, n + m) R g.
        curvature: (B, 1) a.
        weight: (n + m + 1,) or (B, n + m + 1) R.
    """
    b = -_dot(step + p, weighted) - weight[..., -1:] * eta
    c = _dot(p, weight[..., :-1] * step)
    discriminant = b * b - 4 * curvature * c
    real = discriminant > 0
    root = torch.sqrt(torch.where(real, discriminant, 1.0))
    ahead, twice = b > 0, 2 * curvature
    q = torch.where(ahead, -(b + root) / 2, 1.0)
    stable = torch.where(ahead, c / q, (root - b) / twice)
    return torch.where(real, stable, -b / twice)


def _dot(one: Tensor, two: Tensor) -> Tensor:
    """(B, 1)"""
    return (one * two).sum(1, keepdim=True)
