"""Which linear system to use."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from maps.scs.linear_systems import conjugate_gradients, dense, sparse
from maps.scs.linear_systems.condensed import factor as condensed
from maps.scs.linear_systems.dense import FactorizationError
from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix

KINDS = ("auto", "dense", "condensed", "sparse", "cg")
"""What `SCS(linear_solver=...)` takes."""

_CONDENSED_FROM = 100
"""Unknowns below which K is not worth an elimination order."""
_DENSE_SIZE, _DENSE_BYTES, _FACTORS = 1500, 2**30, 64
"""Variables, and bytes of all matrices, up to which a batch is factored densely; most factors of one batch."""
_COMPOSED_FROM = 1000
"""Right sides from which on a shared K is worth its condensation: a sparse factor takes an eighth of the time to make,
and its solves half as much again."""


class LinearSystem(Protocol):
    """K, ready to be solved with: a NamedTuple whose tensors are batch-first, or have no batch axis when shared."""

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""


def choose(A: Pattern, P: Pattern | None, copies: int, rights: int | None = None) -> str:
    """The kind that "auto" stands for.

    Args:
        A: pattern of A, (m, n).
        P: pattern of P, (n, n), or None.
        copies: matrices to factor: 1 when the batch shares them, else B.
        rights: right sides that a shared K is for, about; None: many.
    """
    m, n = A.shape
    if n + m >= _CONDENSED_FROM and n <= _DENSE_SIZE and m <= _DENSE_SIZE and condensed.cheaper(A, P, copies):
        return "condensed" if rights is None or rights >= _COMPOSED_FROM else "sparse"
    if n <= _DENSE_SIZE and 8 * copies * n * (n + 2 * m) <= _DENSE_BYTES:
        return "dense"
    return "sparse" if copies <= _FACTORS else "cg"


def factor(
    kind: str,
    A: Matrix,
    P: Matrix | None,
    R_y: Tensor,
    rho_x: float,
    *,
    weightless: int | None = None,
    tolerance: float = 0.0,
) -> LinearSystem:
    """Prepare K for a batch, or once for a shared A and P.

    Args:
        kind: "dense" (A and P are tensors), "condensed", "sparse" or "cg" (they are `SparseMatrix`).
        A: (B, m, n), or (m, n) shared.
        P: (B, n, n) or (n, n), like A; None for 0.
        R_y: (m,) positive, or (B, m).
        rho_x: positive.
        weightless: None, or how many rows in front have an R_y that, like rho_x, is next to nothing.
        tolerance: what "condensed" need not be more accurate than.

    Raises:
        FactorizationError: no instance's factor reproduced a known solution.
    """
    if kind == "dense":
        assert not isinstance(A, SparseMatrix)
        assert not isinstance(P, SparseMatrix)
        return (dense.factor if weightless is None else dense.invert)(A, P, R_y, rho_x)
    assert isinstance(A, SparseMatrix)
    assert P is None or isinstance(P, SparseMatrix)
    if kind == "sparse" and weightless is not None:
        try:
            return sparse.factor(A, P, R_y, rho_x, pivoted=True)
        except FactorizationError:
            kind = "condensed"
    if kind == "condensed":
        return condensed.factor(A, P, R_y, rho_x, weightless, tolerance)
    return (sparse.factor if kind == "sparse" else conjugate_gradients.prepare)(A, P, R_y, rho_x)
