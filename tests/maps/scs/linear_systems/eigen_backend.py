"""A backend that nobody ships: the eigenvectors of K. One file, and one line that registers it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maps.scs.linear_systems import KktMatrix, LinearSolver
from maps.scs.problem.sparse_matrix import times


class Spectral(NamedTuple):
    """K = V diag(values) V'."""

    values: Tensor
    vectors: Tensor

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""
        return times(self.vectors, times(self.vectors.mT, right) / self.values)

    def restricted(self, first: int) -> None:
        """It takes the whole system."""

    @property
    def solves_singly(self) -> bool:
        """It does not."""
        return False


class SpectralSolver(LinearSolver):
    """By a symmetric eigendecomposition."""

    name = "spectral"
    layout = "dense"

    def factor(self, matrix: KktMatrix) -> Spectral:
        """See `LinearSolver.factor`."""
        A, P = matrix.A, matrix.P
        assert isinstance(A, Tensor)
        corner = matrix.rho_x * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand(*A.shape[:-2], -1, -1)
        R = torch.diag_embed(matrix.R_y.expand(*A.shape[:-1]))
        K = torch.cat([torch.cat([corner if P is None else P + corner, A.mT], -1), torch.cat([A, -R], -1)], -2)
        return Spectral(*torch.linalg.eigh(K))
