"""Cone programs, single or batched: what the user gives, checked and turned into tensors.

minimize 1/2 x'Px + c'x   subject to   Ax + s = b,  s in K        (dual variable y in K*)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fixedpoint.iterate import concrete
from maps.cones import ConeSpec, ProductCone

ConvertibleToTensor = Any
"""A torch tensor, a NumPy array, a SciPy sparse matrix or nested lists of numbers."""


class ConeProgram:
    """One cone program or a batch of them.

    Args:
        A: (m, n), shared by the batch, or (B, m, n).
        b: (m,) or (B, m).
        c: (n,) or (B, n).
        P: (n, n) or (B, n, n), full symmetric positive semidefinite; None for a linear objective.
        cones: rows of K in SCS's order, e.g. {"z": 3, "l": 2, "q": [3, 4]}; see `maps.cones.ProductCone`.

    A part with one axis less than the batched form is shared; a program with no batched part is a single one. All
    parts become torch tensors of one floating dtype (float64 unless tensors of another were given). SCS's scaling
    counts stored entries: of a SciPy matrix its stored ones (explicit zeros too), of a dense A those that are not zero
    in every instance.

    Raises:
        ValueError: shapes that do not fit each other, unknown cone keys, cones that do not add up to m.
        TypeError: parts of different floating dtypes.
    """

    def __init__(
        self,
        A: ConvertibleToTensor,
        b: ConvertibleToTensor,
        c: ConvertibleToTensor,
        P: ConvertibleToTensor | None = None,
        cones: ConeSpec | None = None,
    ) -> None:
        if cones is None:
            raise ValueError('cones: expected the rows of K, such as {"z": 3, "l": 2, "q": [3]}')
        self.cone = ProductCone(cones)
        self.A, self.b, self.c = (_tensor(n, v) for n, v in (("A", A), ("b", b), ("c", c)))
        self.P = None if P is None else _tensor("P", P)
        # fixed here, not from the batch that is solved: an invalid instance that is replaced must not change it
        self.stored = {n: _stored(v, t) for n, v, t in (("A", A, self.A), ("P", P, self.P)) if t is not None}
        parts = {"A": self.A, "b": self.b, "c": self.c} | ({} if self.P is None else {"P": self.P})
        dtypes = {name: t.dtype for name, t in parts.items()}
        if len(set(dtypes.values())) > 1:
            raise TypeError(f"A, b, c, P: expected one dtype, got {', '.join(f'{n}: {d}' for n, d in dtypes.items())}")
        _check_shapes(parts, self.cone)

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.c.shape[-1]

    @property
    def m(self) -> int:
        """Number of rows."""
        return self.b.shape[-1]

    @property
    def batch(self) -> int | None:
        """B, or None for a single program."""
        ranks = {"A": 2, "b": 1, "c": 1, "P": 2}
        for name, rank in ranks.items():
            part = getattr(self, name)
            if part is not None and part.ndim > rank:
                return part.shape[0]
        return None

    @property
    def cones(self) -> ConeSpec:
        """The rows of K, every key present."""
        return self.cone.spec

    def __repr__(self) -> str:
        kind = "single" if self.batch is None else f"batch of {self.batch}"
        cones = {key: value for key, value in self.cones.items() if value}
        return f"ConeProgram({kind}, n={self.n}, m={self.m}, cones={cones}, quadratic={self.P is not None})"


def _flatten(program: ConeProgram) -> tuple[list[Any], tuple[Any, ...]]:
    return [program.A, program.b, program.c, program.P], (program.cone, program.stored)


def _flatten_with_keys(program: ConeProgram) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    values, context = _flatten(program)
    return list(zip(map(pytree.GetAttrKey, ("A", "b", "c", "P")), values, strict=True)), context


def _unflatten(values: Any, context: tuple[Any, ...]) -> ConeProgram:
    program = object.__new__(ConeProgram)
    program.A, program.b, program.c, program.P = values
    program.cone, program.stored = context
    return program


# a pytree, so that the core can index, map and differentiate its tensors by name
pytree.register_pytree_node(ConeProgram, _flatten, _unflatten, flatten_with_keys_fn=_flatten_with_keys)


def _is_sparse(value: Any) -> bool:
    return hasattr(value, "tocoo")


def _stored(given: Any, tensor: Tensor) -> np.ndarray:
    """(rows, columns) bool mask of the stored entries; an array, since it must outlive a torch.func transform.

    Inside vmap, where the values cannot be read, every entry counts.
    """
    if _is_sparse(given):
        coo = given.tocoo()
        mask = np.zeros(coo.shape, dtype=bool)
        mask[coo.row, coo.col] = True
        return mask
    if not concrete(tensor):
        return np.ones(tensor.shape[-2:], dtype=bool)
    present = torch.nan_to_num(tensor.detach()) != 0
    present = present.flatten(0, -3).any(0) if tensor.ndim > 2 else present
    return np.array(present.tolist(), dtype=bool).reshape(tensor.shape[-2:])


def _tensor(name: str, value: ConvertibleToTensor) -> Tensor:
    """A floating tensor; integers become float64."""
    if _is_sparse(value):
        value = value.toarray()
    if isinstance(value, Tensor):
        tensor = value
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
    else:
        try:
            array = np.asarray(value)
            tensor = torch.as_tensor(array if array.flags.writeable else array.copy())
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected numbers in a tensor, array or SciPy matrix ({error})") from None
    if tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}")
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def _check_shapes(parts: dict[str, Tensor], cone: ProductCone) -> None:
    for name, rank in (("A", 2), ("b", 1), ("c", 1), ("P", 2)):
        if name in parts and parts[name].ndim not in (rank, rank + 1):
            shape = tuple(parts[name].shape)
            raise ValueError(f"{name}: expected {rank} axes, or {rank + 1} for a batch, got shape {shape}")
    n, m = parts["c"].shape[-1], parts["b"].shape[-1]
    if n == 0:
        raise ValueError("c: expected at least one variable, got none")
    for name, shape in (("A", (m, n)), ("P", (n, n))):
        if name in parts and tuple(parts[name].shape[-2:]) != shape:
            got = tuple(parts[name].shape)
            raise ValueError(f"{name}: expected {shape} from b (m = {m}) and c (n = {n}), got shape {got}")
    if cone.dim != m:
        listed = ", ".join(f"{key}: {value}" for key, value in cone.spec.items() if value)
        raise ValueError(f"cones: the rows of {{{listed}}} add up to {cone.dim}, but b has m = {m}")
    sizes = {n: t.shape[0] for n, t in parts.items() if t.ndim == (3 if n in "AP" else 2)}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"A, b, c, P: batch sizes differ: {', '.join(f'{k}: {v}' for k, v in sizes.items())}")
