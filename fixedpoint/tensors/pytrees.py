"""What the core knows of a problem: its named tensor leaves, single or batched, usable or not.

This is the one place that touches pytrees. A leaf's name is its path in the problem ("b", "layers.0.weight"); a bare
tensor is called "problem". A map's `ranks` say which leaves carry a row per instance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree  # the tree that torch.func itself uses; there is no public door

Ranks = Mapping[str, int] | None


def tensors(tree: Any) -> dict[str, Tensor]:
    """The tensor leaves by name, in order."""
    return {_name(path): leaf for path, leaf in pytree.tree_leaves_with_path(tree) if isinstance(leaf, Tensor)}


def replace(tree: Any, new: Mapping[str, Any]) -> Any:
    """The same tree with the leaves in `new` put in place of those of the same name."""
    flat, spec = pytree.tree_flatten_with_path(tree)
    return pytree.tree_unflatten([new.get(_name(path), leaf) for path, leaf in flat], spec)


def transform(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to every tensor leaf (and to the leaves of `others` at the same places)."""
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if type(tree) is tuple or hasattr(tree, "_fields"):  # most of what there is; PyTorch's own way takes far longer
        parts = [transform(function, *same) for same in zip(tree, *others, strict=True)]
        return tuple(parts) if type(tree) is tuple else type(tree)(*parts)
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    flat, spec = pytree.tree_flatten(tree)
    rest = [pytree.tree_flatten(other)[0] for other in others]
    zipped = zip(flat, *rest, strict=True)
    return pytree.tree_unflatten([function(*ts) if isinstance(ts[0], Tensor) else ts[0] for ts in zipped], spec)


def _name(path: tuple[Any, ...]) -> str:
    parts = [getattr(k, "name", getattr(k, "key", getattr(k, "idx", ""))) for k in path]
    return ".".join(str(p) for p in parts) or "problem"


def is_row(name: str, leaf: Tensor, ranks: Ranks) -> bool:
    """Whether the leaf has one row per instance (else the batch shares it)."""
    return ranks is None or leaf.ndim == ranks[name] + 1


def batch_size(problem: Any, ranks: Ranks) -> int | None:
    """The batch size of a problem, None for a single one.

    Raises:
        ValueError: no tensor leaves, a leaf of the wrong rank, unequal batch sizes, an empty batch.
        TypeError: no floating leaves, or floating leaves of different dtypes or devices.
    """
    found = tensors(problem)
    if not found:
        raise ValueError(f"problem: expected tensors, got {type(problem).__name__} without any")
    floating = {name: t for name, t in found.items() if t.is_floating_point()}
    if not floating:
        listed = ", ".join(f"{name}: {t.dtype}" for name, t in found.items())
        raise TypeError(f"problem: expected floating-point tensors, got {listed}")
    for what in ("dtype", "device"):
        kinds = {name: getattr(t, what) for name, t in floating.items()}
        if len(set(kinds.values())) > 1:
            listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
            raise TypeError(f"problem: expected one {what} for all tensors, got {listed}")
    sizes: dict[str, int] = {}
    for name, leaf in found.items():
        if ranks is not None and name not in ranks:
            raise ValueError(f"{name}: not a part of this map's problem, whose parts are {sorted(ranks)}")
        if ranks is not None and leaf.ndim not in (ranks[name], ranks[name] + 1):
            raise ValueError(
                f"{name}: expected {ranks[name]} axes for one instance or {ranks[name] + 1} for a batch, "
                f"got shape {tuple(leaf.shape)}"
            )
        if ranks is None and leaf.ndim == 0:
            raise ValueError(f"{name}: expected a batch axis first, got a scalar")
        if is_row(name, leaf, ranks):
            sizes[name] = leaf.shape[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"problem: batch sizes differ: {', '.join(f'{k}: {v}' for k, v in sizes.items())}")
    if sizes and 0 in sizes.values():
        raise ValueError(f"{next(iter(sizes))}: expected at least one instance, got an empty batch")
    return next(iter(sizes.values()), None)


def dtype(problem: Any) -> torch.dtype:
    """The floating dtype of a problem that passed `batch_size`."""
    return next(t.dtype for t in tensors(problem).values() if t.is_floating_point())


def device(problem: Any) -> torch.device:
    """The device of a problem that passed `batch_size`."""
    return next(t.device for t in tensors(problem).values() if t.is_floating_point())


def batched(problem: Any, ranks: Ranks) -> Any:
    """A single problem as a batch of one: every leaf gets its batch axis."""
    return transform(lambda t: t.unsqueeze(0), problem)


def unbatched(tree: Any) -> Any:
    """The only row of a batch of one, without the batch axis."""
    return transform(lambda t: t.squeeze(0), tree)


def nonfinite(problem: Any, ranks: Ranks, batch: int) -> dict[str, Tensor]:
    """Instances with NaN or infinite data: message -> (B,) bool. A fault in a shared leaf hits every instance."""
    faults = {}
    for name, leaf in tensors(problem).items():
        if not leaf.is_floating_point():
            continue
        if bool(torch.isfinite(leaf.sum())):  # ten times faster than to look at each
            rows = torch.zeros(batch, dtype=torch.bool, device=leaf.device)
        else:
            bad = ~torch.isfinite(leaf)
            rows = bad.reshape(batch, -1).any(1) if is_row(name, leaf, ranks) else bad.any().expand(batch)
        faults[f"{name}: expected finite numbers, got NaN or infinity"] = rows
    return faults


def take_rows(problem: Any, ranks: Ranks, index: Tensor) -> Any:
    """The problem of the instances in `index` (int64, (B',)); shared leaves stay as they are."""
    return replace(problem, {n: t[index] for n, t in tensors(problem).items() if is_row(n, t, ranks)})


def replace_rows(problem: Any, ranks: Ranks, bad: Tensor) -> Any:
    """The problem with the rows in `bad` replaced by a copy of the first good one.

    The batch keeps its size, so that the good rows' arithmetic stays bitwise what it was.
    """
    rows = torch.arange(bad.shape[0], device=bad.device)
    source = torch.where(bad, torch.argmin(bad.to(torch.int8)), rows)
    return take_rows(problem, ranks, source)
