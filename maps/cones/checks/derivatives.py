"""Derivatives of functions of rows, by autograd and by differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from maps.cones.checks.case import norm

STEP = 1e-4
"""Length of the longest difference, relative to the point."""
AGREE = 1e-5
"""How well differences must agree with each other for the point to count as smooth."""


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(B, k) -> (B, k, k): entry (b, i, j) is the derivative of output i by input j, in reverse mode.

    The function is evaluated once, so that all entries belong to one branch where rounding chooses among several.
    """
    pull = torch.func.vjp(function, x)[1]
    rows = [pull(e.expand_as(x).contiguous())[0] for e in torch.eye(x.shape[1], dtype=x.dtype)]
    return torch.stack(rows, 1) if rows else x.new_zeros(len(x), 0, 0)


def directions(dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Three fixed directions (k,) that no cone was made for, about as long as 1."""
    draw = torch.Generator().manual_seed(0)
    u, v, w = torch.randn(3, dim, generator=draw, dtype=torch.float64) / max(dim, 1) ** 0.5
    return u, v, w


def differences(function: Callable[[Tensor], Tensor], x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives by differences, and where there is a derivative to compare them with.

    A direction is smooth where central differences over two lengths agree, and the derivatives from the left and from
    the right, extrapolated from the two lengths, do too: central differences alone agree at a kink.

    Args:
        function: (R, k) -> (R, m), rows independent; called once with R a multiple of B, row b's points together.
        x: (B, k).
        along: (n, k) directions about as long as 1.

    Returns:
        (B, m, n) derivatives, error about AGREE, and (B, n) whether x is smooth in each direction.
    """
    batch, n = len(x), len(along)
    step = (STEP * norm(x))[:, None, None]  # (B, 1, 1)
    lengths = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0], dtype=x.dtype)
    moved = x[:, None, None, :] + step[..., None] * lengths[:, None, None] * along  # (B, 5, n, k)
    values = function(moved.flatten(0, 2)).detach().unflatten(0, (batch, 5, n))
    far, near, here, near_back, far_back = values.unbind(1)  # (B, n, m)
    right = (4 * near - far - 3 * here) / step
    left = (3 * here - 4 * near_back + far_back) / step
    wide, narrow = (far - far_back) / (2 * step), (near - near_back) / step
    smooth = ((right - left).abs() <= AGREE) & ((wide - narrow).abs() <= AGREE)
    return ((4 * narrow - wide) / 3).mT, smooth.all(2)
