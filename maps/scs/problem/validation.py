"""Data faults of single cone programs, beyond numbers that are not finite."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix

_DENSE = 1000
"""Variables up to which a sparse P is tested densely."""


def faults(problem: ConeProgram) -> dict[str, Tensor]:
    """A P that is not symmetric, or not positive semidefinite: message -> (B,) bool. Expects finite numbers."""
    if problem.P is None:
        return {}
    P: Tensor | SparseMatrix = problem.P
    lone: Tensor | bool = False
    if isinstance(P, SparseMatrix):
        P, lone = _coupled(P)
    if isinstance(P, SparseMatrix) and P.shape[-1] <= _DENSE:
        P = P.to_dense()
    skew, indefinite = _sparse(P) if isinstance(P, SparseMatrix) else _dense(P)
    indefinite = indefinite | lone
    batch = problem.batch or 1
    return {
        "P: expected a symmetric matrix or one triangle of it, got an asymmetric one": skew.expand(batch),
        "P: expected a positive semidefinite matrix, got an indefinite one": (indefinite & ~skew).expand(batch),
    }


def _coupled(P: SparseMatrix) -> tuple[SparseMatrix, Tensor]:
    """(P of the variables that have off-diagonal entries, (B,) or () whether another's diagonal entry is negative)."""
    rows, columns = P.pattern.rows, P.pattern.columns
    coupled = np.unique(np.concatenate([part[rows != columns] for part in (rows, columns)]))
    inside = np.isin(rows, coupled) & np.isin(columns, coupled)
    size, places = (
        P.values.abs().amax(-1) if len(rows) else P.values.sum(-1),
        torch.from_numpy(np.flatnonzero(~inside)).to(P.values.device),
    )
    lone = (P.values[..., places] < -_limits(size, P.pattern.shape[0])[1][..., None]).any(-1)
    place = np.searchsorted(coupled, rows[inside]), np.searchsorted(coupled, columns[inside])
    kept = P.values[..., torch.from_numpy(np.flatnonzero(inside)).to(P.values.device)]
    return SparseMatrix(kept, Pattern(*place, (len(coupled), len(coupled)))), lone


def _limits(size: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(largest |P - P'|, most negative eigenvalue) that rounding explains, for matrices of this largest entry."""
    eps = torch.finfo(size.dtype).eps
    return 1e3 * eps * size, n * 1e2 * eps * torch.where(size > 0, size, 1.0)


def _dense(P: Tensor) -> tuple[Tensor, Tensor]:
    """(asymmetric, indefinite), (B,) each, or scalars."""
    if not P.shape[-1]:
        return (none := torch.zeros(P.shape[:-2], dtype=torch.bool, device=P.device)), none
    asymmetry, shift = _limits(P.abs().amax((-2, -1), keepdim=True), P.shape[-1])
    skew = ((P - P.mT).abs() > asymmetry).any(-1).any(-1)
    identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    indefinite = torch.linalg.cholesky_ex((P + P.mT) / 2 + shift * identity).info > 0
    return skew, indefinite


def _sparse(P: SparseMatrix) -> tuple[Tensor, Tensor]:
    """The same: elimination without pivoting has positive pivots just where a matrix is positive definite."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    n = P.pattern.shape[0]
    many = P.values if P.ndim == 3 else P.values[None]
    unpivoted = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    found = []
    for values in many.detach().double():
        matrix = sparse.csr_matrix((values.numpy(), (P.pattern.rows, P.pattern.columns)), shape=(n, n))
        asymmetry, shift = (float(limit) for limit in _limits(values.abs().amax(), n))
        try:
            lu = splu(((matrix + matrix.T) / 2 + shift * sparse.eye_array(n)).tocsc(), **unpivoted)
            definite = np.array_equal(lu.perm_r, lu.perm_c) and bool((lu.U.diagonal() > 0).all())
        except RuntimeError:  # a pivot of exactly 0
            definite = False
        found.append((bool(abs(matrix - matrix.T).max() > asymmetry), not definite))
    skew, indefinite = (torch.tensor(part, device=P.values.device) for part in zip(*found, strict=True))
    return (skew, indefinite) if P.ndim == 3 else (skew[0], indefinite[0])
