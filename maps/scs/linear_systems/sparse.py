"""Sparse factorizations by SuperLU (SciPy): one for the batch that shares its matrices, or one for each instance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint.tensors.masks import is_constant
from maps.scs.linear_systems.base import FactorizationError, KktMatrix, LinearSolver, LinearSystem
from maps.scs.linear_systems.condensed import factor as condensed
from maps.scs.linear_systems.condensed.backend import COMPOSED_FROM, condensable
from maps.scs.linear_systems.dense import fits
from maps.scs.linear_systems.kkt import apply, host, kkt_product, mapped_first
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix

EXACT = 1e-12
"""Error of the known solution up to which a factor needs no refinement."""


MOST = 64
"""Factors of one batch, at most."""


class SparseSolver(LinearSolver):
    """SuperLU; where K has unweighted rows and that is not exact, condensation instead."""

    name = "sparse"
    layout = "sparse"
    can_eliminate = True
    on_host = True

    def suits(self, A: Pattern, P: Pattern | None, copies: int, rights: int | None) -> bool:
        """See `LinearSolver.suits`."""
        few = rights is not None and rights < COMPOSED_FROM and condensable(A, P, copies)
        return few or (copies <= MOST and not fits(A, copies))

    def factor(self, matrix: KktMatrix) -> LinearSystem:
        """See `LinearSolver.factor`."""
        assert isinstance(matrix.A, SparseMatrix)
        assert matrix.P is None or isinstance(matrix.P, SparseMatrix)
        eliminates = matrix.unweighted_rows is not None
        try:
            return factor(matrix.A, matrix.P, matrix.R_y, matrix.rho_x, pivoted=eliminates)
        except FactorizationError:
            if not eliminates:
                raise
        return condensed.factor(matrix)


class Factor(NamedTuple):
    """Of one instance."""

    lu: Any
    """SuperLU's."""
    K: Any
    """For a step of refinement; None where it is exact without."""

    def solve(self, right: np.ndarray) -> np.ndarray:
        """(n + m,) or (n + m, k)."""
        found: np.ndarray = self.lu.solve(right)
        return found if self.K is None else found + self.lu.solve(right - self.K @ found)


class Factors(list[Any]):
    """`Factor`s, None where a matrix was singular. Opaque to torch's pytrees, as a subclass of list."""

    def __call__(self, right: Tensor, which: Tensor) -> Tensor:
        """Solve for the rows of `right` (B, k), each with the factor that `which` (B,) names."""
        host, index = right.detach().double().numpy(), which.numpy()
        out = np.full(host.shape, np.nan)
        for one in np.unique(index) if len(self) > 1 else (0,):
            rows = index == one if len(self) > 1 else slice(None)
            if self[one] is not None:
                out[rows] = self[one].solve(host[rows].T).T
        return torch.from_numpy(out).to(right.dtype)


class SparseDirect(NamedTuple):
    """LU factors of K."""

    A: SparseMatrix
    P: SparseMatrix | None
    R_y: Tensor
    """(B, m), or (m,) when shared."""
    which: Tensor
    """(B,) int64, the factor of each instance, or () when shared."""
    factors: Factors
    rho_x: float

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""
        solution = self._once(right)
        if all(is_constant(t) for t in (self.A.values, self.R_y, *(() if self.P is None else (self.P.values,)))):
            return solution
        # K is differentiated, or mapped: a step of refinement sees it
        return solution + self._once(right - kkt_product(self.A, self.P, self.R_y, self.rho_x, solution))

    def restricted(self, first: int) -> None:
        """See `LinearSystem`: it takes the whole system."""

    @property
    def solves_singly(self) -> bool:
        """See `LinearSystem`."""
        return True

    def _once(self, right: Tensor) -> Tensor:
        return apply(self.factors, right, self.which.expand(right.shape[0]))


def factor(
    A: SparseMatrix, P: SparseMatrix | None, R_y: Tensor, rho_x: float, *, pivoted: bool = False
) -> SparseDirect:
    """Factor K once, or once for each instance: see `linear_systems.factor`; `pivoted` where K has tiny pivots, and may
    be close to a singular matrix: then a factor is `EXACT`, or refused.

    Raises:
        FactorizationError: no factor reproduced a known solution. An instance without one ends as DIVERGED.
    """
    lead, factors = A.values.shape[:-1], Factors()
    R_y = R_y.expand(*lead, A.pattern.shape[0])
    quadratic = A.values.new_zeros(*lead, 0) if P is None else P.values.expand(*lead, -1)
    build = partial(_factor, A.pattern, None if P is None else P.pattern, rho_x, pivoted)
    which = _Factorize.apply(factors, build, A.values.detach(), quadratic.detach(), R_y.detach())
    if all(one is None for one in factors):
        raise FactorizationError(
            "A, P: the linear system could not be factored accurately; rescale the data or raise rho_x"
        )
    return SparseDirect(A, P, R_y, which, factors, rho_x)


class _Factorize(torch.autograd.Function):
    """Factor on the host, in torch's eyes a constant that says which factor is whose; a mapped axis joins the batch."""

    @staticmethod
    def forward(factors: Factors, build: Callable[..., Any], *parts: Tensor) -> Tensor:
        """Add a factor for each row of the parts (..., k): (...) int64 places."""
        lead = parts[0].shape[:-1]
        rows = [part.reshape(lead.numel(), -1).double().numpy() for part in parts]
        first = len(factors)
        factors.extend(build(*row) for row in zip(*rows, strict=True))
        return torch.arange(first, len(factors)).reshape(lead)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """No derivative."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        """No derivative."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], factors: Factors, build: Any, *parts: Tensor) -> tuple[Tensor, int]:
        """A factor for each mapped row."""
        return _Factorize.apply(factors, build, *mapped_first(info.batch_size, in_dims[2:], parts)), 0


def _factor(
    A: Pattern,
    P: Pattern | None,
    rho_x: float,
    pivoted: bool,
    values: np.ndarray,
    quadratic: np.ndarray,
    R_y: np.ndarray,
) -> Factor | None:
    """A verified factor of one instance's K, or None."""
    from scipy.sparse.linalg import splu

    m, n = A.shape
    parts = (
        SparseMatrix(torch.from_numpy(values), A),
        None if P is None else SparseMatrix(torch.from_numpy(quadratic), P),
    )
    K = host(*parts, torch.from_numpy(R_y), rho_x)
    if not np.isfinite(K.data).all():
        return None
    known = np.cos(np.arange(n + m) ** 2 + 0.5)
    target = K @ known
    size = abs(K).sum(axis=1).max(initial=1.0)
    # quasi-definite: any symmetric elimination order exists; where that is not accurate, pivot
    symmetric = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}}
    for options in ({**symmetric, "diag_pivot_thresh": 1e-3 if pivoted else 0.0}, {}):
        try:
            lu = splu(K, **options)
        except RuntimeError:  # exactly singular
            continue
        found = lu.solve(target)
        if np.abs(found - known).max() <= EXACT:
            return Factor(lu, None)
        if pivoted:
            continue
        found = found + lu.solve(target - K @ found)
        if np.abs(K @ found - target).max() <= 1e-12 * size * np.abs(found).max():
            return Factor(lu, K)
    return None
