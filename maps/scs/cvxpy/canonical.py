"""A CVXPY problem as an affine map from its parameters to the data of a cone program, applied to whole batches.

CVXPY compiles a parametrised problem to sparse tensors: every entry of A, b, c and P is affine in the parameters. What
depends on no parameter is constant, and a batch shares it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from maps.cones import ConeSpec
from maps.scs.cvxpy.leaves import by_columns, expansion, reduction
from maps.scs.cvxpy.linear_map import LinearMap
from maps.scs.cvxpy.recovery import Recovery
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix


@dataclass(frozen=True, eq=False)
class Part:
    """One of A, b, c, P and the objective's offset: affine in some of the parameters."""

    uses: tuple[int, ...]
    """The parameters that it depends on, by number; none: it is constant."""
    map: LinearMap
    """From the entries of these, each row by row, to its numbers."""

    @classmethod
    def of(cls, coefficients: Any, sizes: Sequence[int]) -> Part:
        """From the columns of all parameters, of these sizes, and the constants' column at the end."""
        columns = sparse.csc_array(coefficients)
        ends = np.cumsum([0, *sizes])
        blocks = [columns[:, start:end] for start, end in pairwise(ends)]
        uses = tuple(i for i, block in enumerate(blocks) if block.count_nonzero())
        used = [blocks[i] for i in uses] or [columns[:, :0]]
        return cls(uses, LinearMap(sparse.hstack(used), columns[:, [ends[-1]]].toarray()[:, 0]))

    def __call__(self, values: Sequence[Tensor]) -> Tensor:
        """(R,) where all parameters that it depends on are without a batch axis, else (B, R)."""
        given = [values[i].reshape(*values[i].shape[: values[i].ndim - 1], -1) for i in self.uses]
        if not given:
            return torch.as_tensor(self.map.constant, dtype=values[0].dtype, device=values[0].device)
        batch = max((value.shape[0] for value in given if value.ndim == 2), default=None)
        result = self.map(*(value.expand(batch or 1, -1) for value in given))
        return result[0] if batch is None else result


@dataclass(frozen=True, eq=False)
class Canonical:
    """A parametrised CVXPY problem, compiled once.

    minimize 1/2 x'Px + c'x + offset   subject to   Ax + s = b,  s in K

    A, b, c, P and the offset are affine in the parameters.
    """

    A: Part
    """Its stored entries, in the order of `patterns["A"]`."""
    b: Part
    c: Part
    P: Part | None
    """As A; None for a linear objective."""
    offset: Part
    patterns: dict[str, Pattern]
    """The places of the stored entries of "A" and, unless it is None, "P"."""
    cones: ConeSpec
    recovery: Recovery
    """The way back from x and y."""

    @classmethod
    def of(cls, problem: Any, parameters: Sequence[Any], *, quadratic: bool) -> Canonical:
        """Compile a problem with CVXPY for SCS. Values of its parameters play no part and stay what they are.

        Args:
            problem: a `cvxpy.Problem`, DPP.
            parameters: all its parameters, in the order of the values that are to come.
            quadratic: whether a quadratic objective stays one (in P) or goes to second-order cones.
        """
        with _any_values(parameters), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Reading from a sparse CVXPY expression")  # CVXPY does, not the user
            data, chain, inverse = problem.get_problem_data("SCS", solver_opts={"use_quad_obj": quadratic})
        compiled, dims = data["param_prob"], data["dims"]
        n, sizes = compiled.x.size, [parameter.size for parameter in parameters]
        m = compiled.A.shape[0] // (n + 1)
        to_compiled = _to_compiled(compiled, chain, parameters)
        rows = _without_infinite_bounds(sparse.csr_array(compiled.A), m, slice(dims.zero, dims.zero + dims.nonneg))
        A, A_pattern = _matrix(-rows[: m * n], (m, n))
        objective = sparse.csr_array(compiled.q if hasattr(compiled, "q") else compiled.c)  # c until CVXPY 1.6
        patterns, P = {"A": A_pattern}, None
        if compiled.P is not None:
            P, patterns["P"] = _matrix(sparse.csr_array(compiled.P), (n, n))
        if P is not None and P.shape[0] == 0:  # quadratic it may be, but is not
            del patterns["P"]
            P = None
        cones = {"z": dims.zero, "l": dims.nonneg, "q": dims.soc, "s": dims.psd, "ep": dims.exp, "p": dims.p3d}
        coefficients = {"A": A, "b": rows[m * n :], "c": objective[:n], "offset": objective[n:], "P": P}
        parts: dict[str, Any] = {
            name: None if part is None else Part.of(part @ to_compiled, sizes) for name, part in coefficients.items()
        }
        return cls(
            **parts,
            patterns=patterns,
            cones={key: value for key, value in cones.items() if value},
            recovery=Recovery.of(problem, chain, inverse, compiled, m),
        )

    @property
    def n(self) -> int:
        """Number of variables of the cone program."""
        return self.c.map.shape[0]

    @property
    def m(self) -> int:
        """Number of its rows."""
        return self.b.map.shape[0]

    @property
    def shared(self) -> bool:
        """Whether neither A nor P depends on a parameter."""
        return not self.A.uses and (self.P is None or not self.P.uses)

    @property
    def features(self) -> int:
        """The width of `SCS.featurize` where all parameters vary."""
        varying = [name for name in self.patterns if getattr(self, name).uses]
        return self.n + self.m + sum(len(self.patterns[name]) for name in varying)

    def program(self, values: Sequence[Tensor]) -> ConeProgram:
        """The programs at parameter values.

        Args:
            values: (B, size) for each parameter, row by row, or (size,) for one that the batch shares; of one floating
                dtype.

        Returns:
            A batch, whose parts that depend on nothing batched are shared; a single program where no value has a batch
            axis. A and P are `SparseMatrix`.
        """
        batch = max((value.shape[0] for value in values if value.ndim == 2), default=None)
        matrices = {name: SparseMatrix(getattr(self, name)(values), pattern) for name, pattern in self.patterns.items()}
        b, c = self.b(values), self.c(values)
        varies = b.ndim == 2 or c.ndim == 2 or any(matrix.ndim == 3 for matrix in matrices.values())
        if batch is not None and not varies:  # the offset alone may: still a batch
            c = c.expand(batch, -1)
        return ConeProgram(matrices["A"], b, c, matrices.get("P"), self.cones)


@contextmanager
def _any_values(parameters: Sequence[Any]) -> Iterator[None]:
    """CVXPY compiles only where parameters have values; the user's come back afterwards."""
    before = [parameter._value for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.save_value(np.ones(parameter.shape))
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter._value = value


def _to_compiled(compiled: Any, chain: Any, parameters: Sequence[Any]) -> sparse.csr_array:
    """(K + 1, k + 1) from the parameters' entries, row by row, and 1, to the parameter vector of the compiled problem.

    From CVXPY 1.9 on that holds reduced parameters in place of those with a structure.
    """
    renamed: dict[int, int] = {}
    for step in chain.reductions:
        renamed |= {old: new[0] for old, new in getattr(step, "param_id_map", {}).items()}
    width, column = compiled.total_param_size + 1, 0
    blocks = []
    for parameter in parameters:
        free = reduction(parameter)
        if parameter.id in renamed:
            block, start = free, compiled.param_id_to_col[renamed[parameter.id]]
        else:
            block, start = by_columns(parameter) @ expansion(parameter) @ free, compiled.param_id_to_col[parameter.id]
        block = block.tocoo()
        blocks.append((block.data, block.row + start, block.col + column))
        column += parameter.size
    blocks.append((np.ones(1), np.array([width - 1]), np.array([column])))  # the constants' column is the last
    data, rows, columns = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return sparse.csr_array((data, (rows, columns)), shape=(width, column + 1))


def _without_infinite_bounds(tensor: sparse.csr_array, m: int, inequalities: slice) -> sparse.csr_array:
    """(A, b) whose rows of an upper bound that is constant and infinite become 0 x + s = 1, which binds nothing."""
    constants = tensor[:, [-1]].toarray()[-m:, 0] if m else np.zeros(0)
    absent = np.zeros(m, dtype=bool)
    absent[inequalities] = np.isposinf(constants[inequalities])
    if not absent.any():
        return tensor
    kept = tensor.tocoo()
    there = ~absent[kept.row % m]
    places = np.flatnonzero(absent) + tensor.shape[0] - m
    data = np.concatenate([kept.data[there], np.ones(len(places))])
    rows = np.concatenate([kept.row[there], places])
    columns = np.concatenate([kept.col[there], np.full(len(places), tensor.shape[1] - 1)])
    return sparse.csr_array((data, (rows, columns)), shape=tensor.shape)


def _matrix(tensor: sparse.csr_array, shape: tuple[int, int]) -> tuple[sparse.csr_array, Pattern]:
    """(coefficients of the stored entries, row by row, their places) of a matrix that comes column by column."""
    tensor.sum_duplicates()
    stored = np.flatnonzero(np.diff(tensor.indptr)).astype(np.int64)
    columns, rows = np.divmod(stored, max(shape[0], 1))
    order = np.lexsort((columns, rows))
    return tensor[stored[order]], Pattern(rows[order], columns[order], shape)
