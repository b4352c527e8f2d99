"""The way back from a cone program's x and y to a CVXPY problem's variables and duals, as sparse linear maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

from maps.scs.cvxpy.leaves import expansion
from maps.scs.cvxpy.linear_map import LinearMap

Shape = tuple[int, ...]
Dual = Tensor | list[Tensor] | None


@dataclass(frozen=True, eq=False)
class Recovery:
    """What leads from x and y to variables and duals, in CVXPY's shapes and signs."""

    x: LinearMap
    """To the entries of all variables, each row by row."""
    y: LinearMap
    """To those of all duals."""
    variables: tuple[Shape, ...]
    duals: tuple[tuple[Shape, ...], ...]
    """For each constraint the shapes of its dual variables; none where CVXPY gives none."""

    @classmethod
    def of(cls, problem: Any, chain: Any, inverse: Any, compiled: Any, m: int) -> Recovery:
        """Learn both maps: where each variable is in x from CVXPY's tables, the duals by inverting vectors y."""
        renamed: dict[int, int] = {}
        for step in chain.reductions:
            renamed |= {old: new[0] for old, new in getattr(step, "var_id_map", {}).items()}
        variables, blocks, n = problem.variables(), [], compiled.x.size
        for variable in variables:
            block = expansion(variable).tocoo()
            start = compiled.var_id_to_col.get(renamed.get(variable.id, variable.id), 0)  # of size 0: it is nowhere
            blocks.append(sparse.coo_array((block.data, (block.row, block.col + start)), shape=(variable.size, n)))
        shapes, y = _duals(problem, chain, inverse, n, m)
        return cls(LinearMap(sparse.vstack(blocks)), y, tuple(v.shape for v in variables), shapes)

    def variables_of(self, x: Tensor) -> list[Tensor]:
        """(B, *shape) each, from (B, n)."""
        return _split(self.x(x), self.variables)

    def duals_of(self, y: Tensor) -> list[Dual]:
        """From (B, m), for each constraint (B, *shape), or a list of these where it has several duals, or None."""
        flat = iter(_split(self.y(y), [shape for shapes in self.duals for shape in shapes]))
        found = [[next(flat) for _ in shapes] for shapes in self.duals]
        return [None if not parts else parts[0] if len(parts) == 1 else parts for parts in found]


def _split(flat: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    sizes = [int(np.prod(shape)) for shape in shapes]
    parts = flat.split(sizes, 1) if sizes else ()
    return [part.reshape(len(part), *shape) for part, shape in zip(parts, shapes, strict=True)]


def _duals(problem: Any, chain: Any, inverse: Any, n: int, m: int) -> tuple[tuple[tuple[Shape, ...], ...], LinearMap]:
    """(shapes, map from y): every entry of a dual is a multiple of one entry of y, which two vectors show."""
    reader = _reader(problem, chain, inverse, n)
    ones, counted = reader(np.ones(m)), reader(np.arange(1.0, m + 1))
    probe = np.random.default_rng(0).standard_normal(m)
    shapes, blocks = [], [sparse.coo_array((0, m))]
    for factors, products, proof in zip(ones, counted, reader(probe), strict=True):
        factor, product = (
            np.concatenate([part.ravel() for part in (*parts, np.zeros(0))]) for parts in (factors, products)
        )
        there = np.flatnonzero(factor)
        source = np.rint(product[there] / factor[there]).astype(np.int64) - 1
        block = sparse.coo_array((factor[there], (there, source)), shape=(len(factor), m))
        if not np.allclose(block @ probe, np.concatenate([part.ravel() for part in (*proof, np.zeros(0))])):
            raise NotImplementedError("duals of this kind of constraint are not a selection of the cone program's")
        shapes.append(tuple(part.shape for part in factors))
        blocks.append(block)
    return tuple(shapes), LinearMap(sparse.vstack(blocks))


def _reader(problem: Any, chain: Any, inverse: Any, n: int) -> Callable[[np.ndarray], list[list[np.ndarray]]]:
    """CVXPY's own way from y to the dual variables of each constraint; those of the user's problem stay as they are."""
    told = {"status_val": 1, "solve_time": 0.0, "setup_time": 0.0, "iter": 0, "pobj": 0.0}

    def read(y: np.ndarray) -> list[list[np.ndarray]]:
        raw = {"x": np.zeros(n), "y": y, "s": np.zeros(len(y)), "info": told}
        given = chain.invert(raw, inverse).dual_vars
        found = []
        for constraint in problem.constraints:
            kept = [dual._value for dual in constraint.dual_variables]
            try:
                if constraint.id in given:
                    constraint.save_dual_value(given[constraint.id])
                    found.append([np.asarray(dual.value, dtype=float) for dual in constraint.dual_variables])
                else:
                    found.append([])
            finally:
                for dual, value in zip(constraint.dual_variables, kept, strict=True):
                    dual._value = value
        return found

    return read
