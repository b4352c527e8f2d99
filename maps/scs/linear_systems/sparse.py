"""Sparse factorizations by SuperLU (SciPy): one for the batch that shares its matrices, or one for each instance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maps.scs.linear_systems.constant import Constant, kkt_product
from maps.scs.linear_systems.dense import FactorizationError
from maps.scs.matrix import SparseMatrix


class Factors(tuple[Any, ...]):
    """SuperLU objects; opaque to torch's pytrees, as a subclass of tuple. None where a matrix was singular."""

    def __call__(self, right: Tensor, *which: Tensor) -> Tensor:
        """Solve for the rows of `right` (B, k), each with the factor that `which` (B,) names; without it the first."""
        host = right.double().numpy()
        out = np.full(host.shape, np.nan)
        index = which[0].numpy() if which else np.zeros(len(host), dtype=np.int64)
        for one in np.unique(index):
            rows = index == one
            if self[one] is not None:
                out[rows] = self[one].solve(host[rows].T).T
        return torch.from_numpy(out).to(right.dtype)


class SparseDirect(NamedTuple):
    """LU factors of K."""

    A: SparseMatrix
    P: SparseMatrix | None
    R_y: Tensor
    """(B, m), or (m,) when shared."""
    which: Tensor | None
    """(B,) int64, the factor of each instance; None when shared."""
    factors: Factors
    rho_x: float

    def solve(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n), (B, m) -> (p, q), refined once."""
        p, q = self._once(top, bottom)
        top_again, bottom_again = kkt_product(self.A, self.P, self.R_y, self.rho_x, p, q)
        dp, dq = self._once(top - top_again, bottom - bottom_again)
        return p + dp, q + dq

    def _once(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        which = () if self.which is None else (self.which,)
        solution = Constant.apply(self.factors, torch.cat([top, bottom], 1), *which)
        return solution[:, : top.shape[1]], solution[:, top.shape[1] :]


def factor(A: SparseMatrix, P: SparseMatrix | None, R_y: Tensor, rho_x: float) -> SparseDirect:
    """Factor K once, or once for each instance: see `linear_systems.factor`.

    Raises:
        FactorizationError: no factor reproduced a known solution. An instance without one ends as DIVERGED.
    """
    shared = A.ndim == 2
    copies = 1 if shared else A.shape[0]
    m = A.pattern.shape[0]
    weights = R_y.detach().expand(copies, m).double().numpy()
    values = A.values.detach().expand(copies, -1).double().numpy()
    quadratic = None if P is None else P.values.detach().expand(copies, -1).double().numpy()
    factors = Factors(
        _factor(A, values[i], P, None if quadratic is None else quadratic[i], weights[i], rho_x) for i in range(copies)
    )
    if all(one is None for one in factors):
        raise FactorizationError(
            "A, P: the linear system could not be factored accurately; rescale the data or raise rho_x"
        )
    which = None if shared else torch.arange(copies)
    return SparseDirect(A, P, R_y if shared else R_y.expand(copies, m), which, factors, rho_x)


def _factor(
    A: SparseMatrix,
    values: np.ndarray,
    P: SparseMatrix | None,
    quadratic: np.ndarray | None,
    R_y: np.ndarray,
    rho_x: float,
) -> Any:
    """A verified SuperLU object of one instance's K, or None."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    m, n = A.pattern.shape
    constraint = sparse.csr_matrix((values, (A.pattern.rows, A.pattern.columns)), shape=(m, n))
    block = rho_x * sparse.eye_array(n, format="csr")
    if P is not None:
        block = block + sparse.csr_matrix((quadratic, (P.pattern.rows, P.pattern.columns)), shape=(n, n))
    K = sparse.block_array([[block, constraint.T], [constraint, sparse.diags_array(-R_y)]], format="csc")
    if not np.isfinite(K.data).all():
        return None
    known = np.cos(np.arange(n + m) ** 2 + 0.5)
    target = K @ known
    size = np.abs(K).sum(axis=1).max(initial=1.0)
    # quasi-definite: any symmetric elimination order exists; where that is not accurate, pivot
    for options in ({"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}, {}):
        try:
            lu = splu(K, **options)
        except RuntimeError:  # exactly singular
            continue
        found = lu.solve(target)
        found = found + lu.solve(target - K @ found)
        if np.abs(K @ found - target).max() <= 1e-12 * size * np.abs(found).max():
            return lu
    return None
