"""The held-out instances of a family, the same ones in every form and at every batch size."""

from __future__ import annotations

from functools import lru_cache

from fixedpoint.experiments.evaluation import generator
from fixedpoint.plugins.registry import families
from maps.scs import ConeProgram, SparseMatrix
from maps.scs.problem.sparse_matrix import Matrix

SEED = 0


def draw(family: str, form: str, count: int, split: str = "test") -> ConeProgram:
    """The first `count` instances of a split as one batch, in a form that the family has."""
    return families.create(family, form=form).sample(count, generator=generator(SEED, split))


program = lru_cache(maxsize=4)(draw)
"""As `draw`, and the last ones are kept."""


def calls(family: str, form: str, batch: int, count: int, split: str = "test") -> list[ConeProgram]:
    """The first `count` instances in batches of `batch` (or of `count` where that is less)."""
    whole = program(family, form, count, split)
    if batch >= count:
        return [whole]
    return [rows(whole, start, min(start + batch, count)) for start in range(0, count, batch)]


def rows(whole: ConeProgram, start: int, stop: int) -> ConeProgram:
    """Instances `start` to `stop` of a batch; what they share stays shared."""

    def part(value: Matrix, rank: int) -> Matrix:
        if value.ndim == rank:
            return value
        if isinstance(value, SparseMatrix):
            return SparseMatrix(value.values[start:stop], value.pattern)
        return value[start:stop]

    P = None if whole.P is None else part(whole.P, 2)
    return ConeProgram(part(whole.A, 2), part(whole.b, 1), part(whole.c, 1), P, whole.cones)
