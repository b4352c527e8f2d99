"""Cone programs, single or batched: what the user gives, checked and turned into tensors.

minimize 1/2 x'Px + c'x   subject to   Ax + s = b,  s in K        (dual variable y in K*)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fixedpoint.tensors.masks import is_readable
from maps.cones import ConeSpec, ProductCone
from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix

Numbers = Any
"""A torch tensor, a NumPy array, nested lists of numbers; for A and P also a SciPy sparse matrix, a list of them with
one pattern, or a `SparseMatrix`."""


class ConeProgram:
    """One cone program or a batch of them.

    Args:
        A: (m, n), shared by the batch, or (B, m, n).
        b: (m,) or (B, m).
        c: (n,) or (B, n).
        P: (n, n) or (B, n, n), positive semidefinite; None for a linear objective. The full symmetric matrix or one
            triangle of it: a triangle is mirrored, and `triangle` says which one was given.
        cones: rows of K in SCS's order, e.g. {"z": 3, "l": 2, "q": [3, 4]}; see `maps.cones.ProductCone`.

    A part with one axis less than the batched form is shared; a program with no batched part is a single one. All
    parts become torch tensors of one floating dtype (float64 unless tensors of another were given); what was given
    sparse stays sparse (`SparseMatrix`). SCS's scaling counts stored entries: of a sparse matrix its stored ones
    (explicit zeros too), of a dense one those that are not zero in every instance.

    Raises:
        ValueError: shapes that do not fit each other, unknown cone keys, cones that do not add up to m.
        TypeError: parts of different floating dtypes.
    """

    A: Matrix
    b: Tensor
    c: Tensor
    P: Matrix | None
    cone: ProductCone
    patterns: dict[str, Pattern]
    """The entries of "A" and, unless it is None, "P" that count as stored."""
    triangle: str
    """"full", "upper" or "lower": how P was given."""
    numpy: bool
    """Whether no part was given as a torch tensor."""

    def __init__(self, A: Numbers, b: Numbers, c: Numbers, P: Numbers = None, cones: ConeSpec | None = None) -> None:
        if cones is None:
            raise ValueError('cones: expected the rows of K, such as {"z": 3, "l": 2, "q": [3]}')
        self.cone = ProductCone(cones)
        self.A, self.b, self.c = _matrix("A", A), _tensor("b", b), _tensor("c", c)
        self.P, self.triangle = (None, "full") if P is None else _mirrored(_matrix("P", P))
        parts = {"A": self.A, "b": self.b, "c": self.c} | ({} if self.P is None else {"P": self.P})
        dtypes = {name: t.dtype for name, t in parts.items()}
        if len(set(dtypes.values())) > 1:
            raise TypeError(f"A, b, c, P: expected one dtype, got {', '.join(f'{n}: {d}' for n, d in dtypes.items())}")
        _check_shapes(parts, self.cone)
        # fixed here, not from the batch that is solved: an invalid instance that is replaced must not change it
        self.patterns = {name: _pattern(parts[name]) for name in ("A", "P") if name in parts}
        self.numpy = not any(isinstance(given, Tensor | SparseMatrix) for given in (A, b, c, P))

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
        """The rows of K, without empty keys."""
        return self.cone.spec

    def __repr__(self) -> str:
        kind = "single" if self.batch is None else f"batch of {self.batch}"
        P = {"full": "given in full"}.get(self.triangle, f"{self.triangle} triangle given, mirrored")
        return f"ConeProgram({kind}, n={self.n}, m={self.m}, cones={self.cones}, P={'None' if self.P is None else P})"


def _flatten(program: ConeProgram) -> tuple[list[Any], tuple[Any, ...]]:
    context = (program.cone, program.patterns, program.triangle, program.numpy)
    return [program.A, program.b, program.c, program.P], context


def _flatten_with_keys(program: ConeProgram) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    values, context = _flatten(program)
    return list(zip(map(pytree.GetAttrKey, ("A", "b", "c", "P")), values, strict=True)), context


def _unflatten(values: Any, context: tuple[Any, ...]) -> ConeProgram:
    program = object.__new__(ConeProgram)
    program.A, program.b, program.c, program.P = values
    program.cone, program.patterns, program.triangle, program.numpy = context
    return program


# a pytree, so that the core can index, map and differentiate its tensors by name
pytree.register_pytree_node(ConeProgram, _flatten, _unflatten, flatten_with_keys_fn=_flatten_with_keys)


def _is_sparse(value: Any) -> bool:
    return hasattr(value, "tocoo")


def _matrix(name: str, value: Numbers) -> Matrix:
    """A dense tensor or, of what was given sparse, a `SparseMatrix`."""
    if isinstance(value, SparseMatrix):
        return value
    if _is_sparse(value) or (isinstance(value, list | tuple) and value and all(map(_is_sparse, value))):
        try:
            return SparseMatrix.of(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return _tensor(name, value)


def _tensor(name: str, value: Numbers) -> Tensor:
    """A floating tensor; integers become float64."""
    if _is_sparse(value):
        value = value.toarray()
    if isinstance(value, Tensor):
        tensor = value
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
    else:
        try:
            tensor = torch.as_tensor(
                np.array(value), device="cpu"
            )  # a copy: later edits of what was given must not reach it
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected numbers in a tensor, array or SciPy matrix ({error})") from None
    if tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}")
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def _pattern(matrix: Matrix) -> Pattern:
    """The stored places; inside vmap, where the values cannot be read, all places of a dense matrix."""
    if isinstance(matrix, SparseMatrix):
        return matrix.pattern
    shape = (matrix.shape[-2], matrix.shape[-1])
    if not is_readable(matrix):
        mask = np.ones(shape, dtype=bool)
    else:
        present = torch.nan_to_num(matrix.detach()) != 0
        present = present.flatten(0, -3).any(0) if matrix.ndim > 2 else present
        mask = np.array(present.tolist(), dtype=bool).reshape(shape)
    rows, columns = np.nonzero(mask)
    return Pattern(rows, columns, shape)


def _mirrored(P: Matrix) -> tuple[Matrix, str]:
    """(P in full, what was given of it). A diagonal matrix is full; inside vmap a dense matrix is taken as it is."""
    if P.ndim < 2 or P.shape[-1] != P.shape[-2]:
        return P, "full"  # `_check_shapes` says what is wrong with it
    if isinstance(P, SparseMatrix):
        rows, columns = P.pattern.rows, P.pattern.columns
        below, above = bool((rows > columns).any()), bool((rows < columns).any())
    elif is_readable(P):
        below, above = (bool((torch.nan_to_num(part.detach()) != 0).any()) for part in (P.tril(-1), P.triu(1)))
    else:
        return P, "full"
    if below == above:
        return P, "full"
    if isinstance(P, SparseMatrix):
        off = np.nonzero(rows != columns)[0]
        every = np.concatenate([np.arange(len(rows)), off])
        full = (np.concatenate([rows, columns[off]]), np.concatenate([columns, rows[off]]))
        order = np.lexsort((full[1], full[0]))
        mirror = Pattern(full[0][order], full[1][order], P.pattern.shape)
        P = SparseMatrix(P.values[..., torch.from_numpy(every[order]).to(P.values.device)], mirror)
    else:
        P = P.triu() + P.triu(1).mT if above else P.tril() + P.tril(-1).mT
    return P, "upper" if above else "lower"


def _check_shapes(parts: dict[str, Any], cone: ProductCone) -> None:
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
            given = ", ".join(f"{part} of shape {tuple(parts[part].shape)}" for part in "bc")
            raise ValueError(f"{name}: expected {shape} from {given} (m = {m}, n = {n}), got shape {got}")
    if cone.dim != m:
        listed = ", ".join(f"{key}: {value}" for key, value in cone.spec.items() if value)
        raise ValueError(f"cones: the rows of {{{listed}}} add up to {cone.dim}, but b has m = {m}")
    sizes = {n: t.shape[0] for n, t in parts.items() if t.ndim == (3 if n in "AP" else 2)}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"A, b, c, P: batch sizes differ: {', '.join(f'{k}: {v}' for k, v in sizes.items())}")
