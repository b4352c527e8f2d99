"""Masks over the rows of a batch: they freeze finished rows and, inside torch.func.vmap, stand in for branches.

Public, for maps and accelerators too: what depends on values must ask `is_readable` first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

T = TypeVar("T")


def where_rows(done: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """`old` on the rows in `done` (B,) bool, `new` elsewhere; both (B, ...). It may be one of them, not a copy, and
    then depends on that one only.
    """
    if torch.compiler.is_compiling():
        return torch.where(done.reshape(-1, *[1] * (old.ndim - 1)), old, new)
    if old.ndim > 1 and done.device.type == "cpu" and old.dtype == new.dtype and old.shape == new.shape:
        rows = row_indices(done)  # torch.where takes ten times as long as a copy
        if rows is not None:
            count, batch = rows.shape[0], done.shape[0]
            if 2 * count > batch:
                return old if count == batch else where_rows(~done, new, old)
            return new.index_copy(0, rows, old[rows]) if count else new
    return torch.where(done.reshape(-1, *[1] * (old.ndim - 1)), old, new)


def _read(values: Callable[[], T]) -> T | None:
    """What is read from values; None where that cannot be done, inside vmap. Other errors are not ours."""
    try:
        return values()
    except RuntimeError as error:
        if "vmap" not in str(error):  # torch's sentence for what cannot be batched
            raise
        return None


def is_readable(tensor: Tensor) -> bool:
    """Whether values can be read (not inside vmap)."""
    return _read(lambda: bool(tensor.reshape(-1)[:1].isnan().any())) is not None


def in_place_version(tensor: Tensor) -> int:
    """How often it was changed in place; 0 for tensors of `torch.inference_mode`, which do not count."""
    return 0 if tensor.is_inference() else tensor._version


def any_row(mask: Tensor) -> bool:
    """Whether a mask is set anywhere; True where the values cannot be read (inside vmap)."""
    return _read(lambda: bool(mask.any())) is not False


def finite_rows(points: Tensor) -> Tensor:
    """(B,) whether all entries of a row (B, n), and their sum, are finite: ten times faster than to look at each."""
    return torch.isfinite(points.sum(1))


def is_plain(tensor: Tensor) -> bool:
    """Whether it is an ordinary tensor, not one that torch.compile traces or torch.func wraps (without storage)."""
    if torch.compiler.is_compiling():
        return False
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def is_constant(tensor: Tensor) -> bool:
    """Whether values can be read and nobody asks for a derivative here (no grad, no tangent, not inside torch.func)."""
    recorded = tensor.requires_grad and torch.is_grad_enabled()
    return is_plain(tensor) and not recorded and unpack_dual(tensor).tangent is None


def row_indices(mask: Tensor) -> Tensor | None:
    """(k,) int64 indices of the rows in `mask` (B,); None where the values cannot be read (inside vmap)."""
    return _read(lambda: torch.nonzero(mask).flatten())


def masks_equal(one: Tensor, two: Tensor) -> bool:
    """Whether two masks are equal; False where the values cannot be read (inside vmap)."""
    return _read(lambda: bool((one == two).all())) is True
