"""What a user gives as parameter values: one dtype, right shapes, numbers that the parameters' attributes allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint.tensors.masks import is_readable
from maps.scs.cvxpy.leaves import SYMMETRIC, places

TOLERANCE = 1e-10
"""How far an entry may be from what its attribute asks, relative to the parameter's largest; as in CVXPY."""
DEFINITE = 1e-8
"""The same for the eigenvalues of a definite matrix."""

MOST = 8
"""Instances that a message lists."""

OnInvalid = Literal["raise", "mark"]


class Given(NamedTuple):
    """Checked parameter values."""

    values: list[Tensor]
    """(B, size) each, row by row, or (size,) where the batch shares it; of one floating dtype."""
    bad: Tensor | None
    """(B,) or () bool, instances whose values cannot be used; None where all can."""


def read(parameters: Sequence[Any], values: Sequence[Any], on_invalid: OnInvalid = "raise") -> Given:
    """Check parameter values.

    Args:
        parameters: `cvxpy.Parameter`s.
        values: for each (B, *shape), or (*shape) for one that the batch shares: tensors, arrays, or numbers. Whole
            numbers, and what is no tensor or array, take the dtype of the others, float64 if there is none.
        on_invalid: "raise" for values that their parameter does not allow, or "mark" the instances in `bad`; these must
            not be all.

    Raises:
        ValueError: another number of values, wrong shapes, batch sizes that differ; NaN, infinity or a violated
            attribute. The message names the parameters, and the instances.
        TypeError: no numbers, more than one floating dtype, or none of float32 and float64.
    """
    if on_invalid not in ("raise", "mark"):
        raise ValueError(f'on_invalid: expected "raise" or "mark", got {on_invalid!r}')
    listed = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    if not listed or len(values) != len(parameters):
        got = len(values) if listed else "None" if values is None else type(values).__name__
        names, count = ", ".join(parameter.name() for parameter in parameters), len(parameters)
        noun = "tensor" if count == 1 else "tensors"
        raise ValueError(f"values: expected a list of {count} {noun} in the order [{names}], got {got}")
    tensors = _of_one_dtype(parameters, values)
    batch = _batch(parameters, tensors)
    faults = [
        (message + _where(parameter, tensor, mask, batch), mask.expand(batch or 1))
        for parameter, tensor in zip(parameters, tensors, strict=True)
        if is_readable(tensor)
        for message, mask in _faults(parameter, tensor.detach().reshape(-1, *parameter.shape))
        if bool(mask.any())
    ]
    flat = [
        tensor.reshape(*tensor.shape[: tensor.ndim - len(parameter.shape)], -1)
        for parameter, tensor in zip(parameters, tensors, strict=True)
    ]
    if not faults:
        return Given(flat, None)
    bad = torch.stack([mask for _, mask in faults]).any(0)
    if on_invalid == "raise" or bool(bad.all()):
        hint = ' (on_invalid="mark" solves the others)' if not bool(bad.all()) else ""
        raise ValueError("; ".join(message for message, _ in faults) + hint)
    good = [torch.where(bad[:, None], 0.0, value) if value.ndim == 2 else value for value in flat]
    return Given(good, bad)


def _where(parameter: Any, tensor: Tensor, mask: Tensor, batch: int | None) -> str:
    """Which instances of the batch have a fault, as the end of a message."""
    if batch is None:
        return ""
    if tensor.ndim == len(parameter.shape):
        return " (shared by the batch)"
    found = torch.nonzero(mask).flatten().tolist()
    return f" in instance(s) {found[:MOST]}" + (f" ({len(found)} in all)" if len(found) > MOST else "")


def _of_one_dtype(parameters: Sequence[Any], values: Sequence[Any]) -> list[Tensor]:
    found, dtypes = [], {}
    for parameter, value in zip(parameters, values, strict=True):
        name = parameter.name()
        try:
            tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value), device="cpu")
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected numbers in a tensor or an array ({error})") from None
        if tensor.is_floating_point() and isinstance(value, Tensor | np.ndarray):
            dtypes[name] = tensor.dtype
        if tensor.is_complex() or tensor.dtype in (torch.float16, torch.bfloat16):
            raise TypeError(f"{name}: expected float32, float64 or whole numbers, got {tensor.dtype}")
        found.append(tensor)
    if len(set(dtypes.values())) > 1:
        raise TypeError(f"values: expected one dtype, got {', '.join(f'{n}: {d}' for n, d in dtypes.items())}")
    return [tensor.to(next(iter(dtypes.values()), torch.float64)) for tensor in found]


def _batch(parameters: Sequence[Any], tensors: Sequence[Tensor]) -> int | None:
    """The batch size; None where no value has a batch axis."""
    sizes = {}
    for parameter, tensor in zip(parameters, tensors, strict=True):
        name, shape, got = parameter.name(), tuple(parameter.shape), tuple(tensor.shape)
        if got != shape:
            if got[1:] != shape or not got:
                batched = f"({', '.join(['B', *map(str, shape)])}{'' if shape else ','})"
                raise ValueError(f"{name}: expected shape {shape}, or {batched} for a batch, got {got}")
            sizes[name] = got[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"values: batch sizes differ: {', '.join(f'{n}: {size}' for n, size in sizes.items())}")
    if 0 in sizes.values():
        raise ValueError(f"{next(iter(sizes))}: expected at least one instance, got an empty batch")
    return next(iter(sizes.values()), None)


def _faults(parameter: Any, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(what is wrong, (B,) bool where) with values (B, *shape) of a parameter."""
    name, attributes, flat = parameter.name(), parameter.attributes, value.reshape(len(value), -1)
    if not flat.shape[1]:
        return
    finite = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    if not bool(torch.isfinite(flat.sum())):  # one pass; by entries only where there is need
        finite = torch.isfinite(flat).all(1)
        yield f"{name}: expected finite numbers, got NaN or infinity", ~finite
    if not any(given is not None and given is not False for given in attributes.values()):
        return
    value = torch.where(finite.reshape(-1, *[1] * len(parameter.shape)), value, 0.0)  # told already
    flat = value.reshape(len(value), -1)
    near = TOLERANCE * flat.abs().amax(1, keepdim=True).clamp(min=1)

    def violates(fault: Tensor, by: str) -> tuple[str, Tensor]:
        return f"{name}: expected {'an' if by in ('integer', 'NSD') else 'a'} {by} value", fault & finite

    for sign, kinds in ((1, ("nonneg", "pos")), (-1, ("nonpos", "neg"))):
        for kind in kinds:
            if attributes[kind]:
                yield violates((sign * flat < -near).any(1), kind)
    bounds = attributes["bounds"] or ()
    if bounds and all(isinstance(bound, int | float | np.ndarray) for bound in bounds):  # not expressions
        low, high = (torch.tensor(np.broadcast_to(bound, parameter.shape).reshape(1, -1)).to(flat) for bound in bounds)
        outside = ((flat < low - near) | (flat > high + near)).any(1)
        yield f"{name}: expected values within its bounds", outside & finite
    for kind in ("integer", "boolean"):
        if attributes[kind]:
            off = (flat - flat.round()).abs() > near
            yield violates((off | ((flat != 0) & (flat != 1) & (kind == "boolean"))).any(1), kind)
    free = torch.from_numpy(places(parameter).reshape(1, -1) >= 0)
    for kind in ("diag", "sparsity"):
        if attributes[kind]:
            yield violates((~free & (flat.abs() > near)).any(1), kind)
    if any(attributes[kind] for kind in SYMMETRIC):
        kind = next(kind for kind in SYMMETRIC if attributes[kind])
        skew = ((value - value.mT).abs().reshape(len(value), -1) > 2 * near).any(1)
        yield violates(skew, "symmetric")
        if kind != "symmetric":
            size = DEFINITE * flat.abs().amax(1).clamp(min=1)
            least = torch.linalg.eigvalsh(value.double() * (1 if kind == "PSD" else -1)).reshape(len(value), -1).amin(1)
            yield violates((least < -size) & ~skew, kind)
