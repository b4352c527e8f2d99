"""The homogeneous embedding's own variable: tau after the linear half of a step."""

from __future__ import annotations

import torch
from torch import Tensor


def tau(p: Tensor, v: Tensor, g: Tensor, R: Tensor) -> Tensor:
    """(B, 1) tau~: the larger root of a tau^2 + b tau + c = 0, without cancellation.

    Args:
        p: (B, n + m) K^{-1} (R_x v_x, -R_y v_y).
        v: (B, n + m + 1) the state.
        g: (B, n + m) K^{-1} (c, -b).
        R: (n + m + 1,) or (B, n + m + 1) the metric.
    """
    mu, eta, weight, tau_factor = v[:, :-1], v[:, -1:], R[..., :-1], R[..., -1:]

    def dot(one: Tensor, two: Tensor) -> Tensor:
        return (weight * one * two).sum(1, keepdim=True)

    a = tau_factor + dot(g, g)
    b = dot(mu, g) - 2 * dot(p, g) - tau_factor * eta
    c = dot(p, p) - dot(p, mu)
    discriminant = b * b - 4 * a * c
    real = discriminant > 0
    root = torch.sqrt(torch.where(real, discriminant, torch.ones_like(a)))
    q = torch.where(b > 0, -(b + root) / 2, torch.ones_like(a))
    stable = torch.where(b > 0, c / q, (root - b) / (2 * a))
    return torch.where(real, stable, -b / (2 * a))
