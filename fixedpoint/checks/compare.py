"""What the checks compare: tensors bit by bit or row by row, and the process's global state."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fixedpoint.tensors import pytrees


def clone(tree: Any) -> Any:
    """A deep copy of every tensor of the tree, detached."""
    return pytrees.transform(lambda t: t.detach().clone(), tree)


def cast(tree: Any, dtype: torch.dtype) -> Any:
    """The tree with its floating tensors in another dtype."""
    return pytrees.transform(lambda t: t.to(dtype) if t.is_floating_point() else t, tree)


def changed_rows(old: Tensor, new: Tensor) -> Tensor:
    """(B,) bool: rows that are not bit for bit the same (NaN equals NaN)."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return torch.ones(old.shape[:1], dtype=torch.bool)
    same = (old == new) | ((old != old) & (new != new))
    return ~same.reshape(same.shape[0], -1).all(1)


def identical(old: Tensor, new: Tensor) -> bool:
    """Whether two tensors of any shape are bit for bit the same."""
    return not bool(changed_rows(old[None], new[None]).any())


def changed(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not bit for bit the same."""
    return [name for name in old if name not in new or not identical(old[name], new[name])]


def size(t: Tensor) -> Tensor:
    """(B,) float64, the largest finite entry of each row; not quite 0."""
    entries = t.detach().to(torch.float64).reshape(t.shape[0], -1).abs().nan_to_num(0.0, 0.0)
    return torch.nn.functional.pad(entries, (0, 1), value=torch.finfo(torch.float64).tiny).amax(1)


def distance(a: Tensor, b: Tensor, scale: Tensor | None = None) -> Tensor:
    """(B,) largest difference in each row, relative to `scale` (B,) or the row's largest entry.

    inf where only one of the two is finite, or where shapes differ.
    """
    if a.shape != b.shape:
        return torch.full(b.shape[:1], torch.inf, dtype=torch.float64)
    if scale is None:
        scale = torch.maximum(size(a), size(b))
    a, b = (t.detach().to(torch.float64).reshape(t.shape[0], -1) for t in (a, b))
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b).abs().nan_to_num(torch.inf, torch.inf)
    return torch.nn.functional.pad(gap, (0, 1)).amax(1) / scale


def with_first(t: Tensor, value: float) -> Tensor:
    """The tensor with `value` in row 0; integers stay as they are, and so does the layout in memory."""
    if not t.is_floating_point():
        return t
    copy = t.detach().clone()
    copy[0] = min(value, torch.finfo(t.dtype).max)
    return copy


def global_state() -> dict[str, Any]:
    """What a plug-in must leave alone, as comparable values."""
    numpy = np.random.get_state(legacy=False)
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random state": str(numpy["state"]["pos"]) + numpy["state"]["key"].tobytes().hex(),
        "Python's random state": random.getstate(),
        "the default dtype": torch.get_default_dtype(),
        "the grad mode": torch.is_grad_enabled(),
        "the number of threads": torch.get_num_threads(),
    }


@contextmanager
def preserved() -> Iterator[None]:
    """Work without autograd; put random states, default dtype and grad mode back, whatever a plug-in does to them."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        torch.set_grad_enabled(False)
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
