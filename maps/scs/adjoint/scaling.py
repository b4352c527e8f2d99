"""The diagonals that bring the rows and columns of the adjoint system to size 1, where they are not already."""

from __future__ import annotations

import torch
from torch import Tensor

from fixedpoint.tensors import pytrees
from maps.scs.iteration import equilibration
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Matrix, SparseMatrix

SCALED = 10.0
"""Root-mean-squares of rows and columns within this factor of 1 need no scaling: its passes over the data take longer
than to solve."""


def diagonals(program: ConeProgram, data: equilibration.Data) -> tuple[Tensor, Tensor] | None:
    """(B or 1, m), (B or 1, n) factors of the rows and columns of A; None: 1 for all.

    Those of `scaling.shared`, but one for all rows of a block that a scaling would distort. An instance whose rows and
    columns are near 1 (see `SCALED`) has ones, whatever the others have.
    """
    index = torch.nonzero(~_well_scaled(data)).flatten()
    if len(index) == 0:
        return None
    own = data.A.ndim == 3 or (data.P is not None and data.P.ndim == 3)
    if own:
        P = None if data.P is None else rows_of(data.P, index)
        found = equilibration.shared(
            equilibration.Data(rows_of(data.A, index), P, data.b[index], data.c[index]), program.cone, program.patterns
        )
    else:
        found = equilibration.shared(data, program.cone, program.patterns)
    rows, columns = program.cone.share_within_blocks(found.D, "max", box=True), found.E
    if not own:
        return rows, columns
    return torch.ones_like(data.b).index_copy(0, index, rows), torch.ones_like(data.c).index_copy(0, index, columns)


def rows_of(matrix: Matrix, index: Tensor) -> Matrix:
    """The matrices of the instances in `index` (k,); a shared one stays as it is."""
    return pytrees.transform(lambda t: t[index], matrix) if matrix.ndim == 3 else matrix


def _well_scaled(data: equilibration.Data) -> Tensor:
    """(B,) bool, (1,) where A and P are shared: what needs no scaling. What has no entries is as good."""
    rows, columns = _sizes(data.A)
    if data.P is not None:
        columns = torch.maximum(columns, _sizes(data.P)[1])

    def near(size: Tensor) -> Tensor:
        return ((size == 0) | ((size >= 1 / SCALED) & (size <= SCALED))).all(1)

    return near(rows) & near(columns)


def _sizes(matrix: Matrix) -> tuple[Tensor, Tensor]:
    """(B or 1, m), (B or 1, n) root-mean-squares of the stored entries of rows and columns; 0 where there are none."""
    m, n = matrix.shape[-2:]
    if isinstance(matrix, Tensor):
        squares = (matrix if matrix.ndim == 3 else matrix[None]) ** 2
        return (squares.sum(2) / n).sqrt(), (squares.sum(1) / max(m, 1)).sqrt()
    squares = matrix.values**2
    if matrix.ndim == 2:
        sums = [squares.new_zeros(1, k).index_add(1, by, squares[None]) for k, by in _axes(matrix)]
    else:
        whole, ones = SparseMatrix(squares, matrix.pattern), squares.new_ones(1, 1)
        sums = [whole.product(ones.expand(len(squares), k), transposed=turned) for k, turned in ((n, False), (m, True))]
    counts = [torch.bincount(by, minlength=k).clamp(min=1) for k, by in _axes(matrix)]
    rows, columns = ((total / count).sqrt() for total, count in zip(sums, counts, strict=True))
    return rows, columns


def _axes(matrix: SparseMatrix) -> list[tuple[int, Tensor]]:
    """Of rows and columns how many there are, and those of the stored entries."""
    return list(zip(matrix.pattern.shape, matrix.pattern.index(matrix.values.device), strict=True))
