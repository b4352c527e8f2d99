"""Projections that need the root of one equation per row, differentiable through any transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NEWTON_STEPS = 100
"""Most steps; bisection alone shrinks a bracket of 1e3 to working precision in 63."""

PATIENCE = 3
"""Steps without improvement that an element close to its root may take."""

NOTHING = 1e-50
"""Entries this small beside one of size 1 are 0; it keeps exponents and logarithms of ratios within range."""


def root_operation(
    name: str,
    equation: Callable[..., tuple[Tensor, Tensor]],
    bracket: Callable[..., tuple[Tensor, Tensor]],
    arguments: int,
) -> Callable[..., Tensor]:
    """An operation that finds the root of an increasing function, element by element; not differentiable.

    Newton's method, and bisection where that leaves the bracket. An element stops when it has converged, whatever the
    others do. To torch.compile and torch.func it is one opaque operation, so that it may look at its own progress; to
    gradients the root is a constant: see `implicit_root`.

    Args:
        name: of the operation among torch's.
        equation: (root, *data), of one shape -> the function and its slope; sizes are about 1.
        bracket: data -> two bounds of the root.
        arguments: the number of data, all tensors of one shape.

    Returns:
        data -> the root.
    """
    schema = f"({', '.join(f'Tensor a{i}' for i in range(arguments))}) -> Tensor"

    @torch.library.custom_op(f"fixedpoint::{name}", mutates_args=(), schema=schema)
    def operation(*data: Tensor) -> Tensor:
        low, high = bracket(*data)
        root = low + (high - low) / 2
        eps = torch.finfo(root.dtype).eps
        best, waited = torch.full_like(root, torch.inf), torch.zeros_like(root)
        done = torch.zeros_like(root, dtype=torch.bool)
        for _ in range(NEWTON_STEPS):
            value, slope = equation(root, *data)
            low, high = torch.where(value < 0, root, low), torch.where(value < 0, high, root)
            newton = root - value / slope
            step = torch.where((newton >= low) & (newton <= high), newton, low + (high - low) / 2) - root
            size = eps * (1 + root.abs())
            better = value.abs() < best / 2
            best, waited = torch.where(better, value.abs(), best), torch.where(better, 0, waited + 1)
            rounded = (value.abs() <= 100 * size) & (waited > PATIENCE)  # round-off alone keeps it moving
            done = done | rounded | (value == 0) | (step.abs() <= size)
            if bool(done.all()):
                break
            root = torch.where(done, root, root + step)
        return root

    @operation.register_fake
    def _(*data: Tensor) -> Tensor:
        return torch.empty_like(data[0])

    @operation.register_vmap
    def _(info: Any, in_dims: tuple[int | None, ...], *data: Tensor) -> tuple[Tensor, int]:
        moved = [t[None] if d is None else t.movedim(d, 0) for t, d in zip(data, in_dims, strict=True)]
        return operation(*(t.contiguous() for t in torch.broadcast_tensors(*moved))), 0

    return lambda *data: operation(*(t.detach() for t in data))


def implicit_root(root: Tensor, equation: Callable[[Tensor], Tensor], slope: Tensor) -> Tensor:
    """A root with the first and second derivatives of the implicit function; its value does not change.

    Chord steps with the exact slope, each of which makes one more derivative right.

    Args:
        root: (B,), a constant.
        equation: (B,) -> (B,), a differentiable function of the root and of whatever the root depends on.
        slope: (B,) of the equation at the root.
    """
    for _ in range(2):
        value = equation(root)
        root = root - (value - value.detach()) / slope.detach()
    return root


def unit_scale(z: Tensor) -> tuple[Tensor, Tensor]:
    """(B, k) -> (B, 1) the size of each row, a constant for gradients, and the rows at size 1, in float64.

    A projection onto a cone commutes with such scaling, so equations need not fear large and small numbers.
    """
    size = z.detach().abs().amax(1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    unit = (z / size).to(torch.float64)
    return size, unit - torch.where(unit.abs() < NOTHING, unit, 0.0).detach()
