"""Projections that need the root of one equation per row, differentiable through any transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

STEPS = 4
"""Steps in a round."""

ROUNDS = 25
"""Most rounds; bisection alone shrinks a bracket of 1e3 to working precision in 63 steps."""

NOTHING = 1e-50
"""Entries this small beside one of size 1 are 0; it keeps exponents and logarithms of ratios within range."""


def root_operation(
    name: str,
    equation: Callable[..., tuple[Tensor, Tensor]],
    bracket: Callable[..., tuple[Tensor, Tensor]],
    arguments: int,
) -> Callable[..., Tensor]:
    """An operation that finds the root of an increasing function, element by element; not differentiable.

    Newton's method, and bisection where that leaves the bracket. After every round of steps, elements that have
    converged stop, whatever the others do. To torch.compile and torch.func it is one opaque operation, so that it may
    look at its own progress; to gradients the root is a constant: see `implicit_root`.

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
        done, last = torch.zeros_like(root, dtype=torch.bool), torch.full_like(root, torch.inf)
        for _ in range(ROUNDS):
            start = root
            for _ in range(STEPS):
                before = root
                value, slope = equation(root, *data)
                left = value < 0
                low, high = torch.where(left, root, low), torch.where(left, high, root)
                newton = root - value / slope
                root = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
            size, value = torch.finfo(root.dtype).eps * (1 + root.abs()), value.abs()
            root = torch.where(done, start, root)
            # the second: more than round-off still moves it; neither holds of NaN
            done = done | ~(((root - before).abs() > size) & ((value > 100 * size) | (value < last / 2)))
            if bool(done.all()):
                break
            last = value
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
