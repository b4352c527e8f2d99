"""The cone of positive semidefinite matrices, its own dual."""

from __future__ import annotations

import torch
from torch import Tensor

from maps.cones.calculus.decomposed import DecomposedCone, Parts, clipped_differences
from maps.cones.cone import Cone, whole


class PSD(DecomposedCone):
    """{svec(X) : X symmetric positive semidefinite of this order}.

    svec as in SCS: the lower triangle column by column, off-diagonal entries times sqrt(2), which makes the inner
    product of two svecs that of the matrices. The projection clips eigenvalues at 0 (Higham, Computing a nearest
    symmetric positive semidefinite matrix, 1988). Its derivative, in the eigenbasis, multiplies entry (i, j) by the
    divided difference of max(., 0) at the eigenvalues i and j (Malick & Sendov, Clarke generalized Jacobian of the
    projection onto the cone of positive semidefinite matrices, 2006), taken to be 0 where both are 0.

    Args:
        order: rows of the matrix, >= 0; `dim` is order (order + 1) / 2.

    Raises:
        ValueError: an order that is not a whole number >= 0.
    """

    hint = "a matrix of order k has k (k + 1) / 2 rows"

    def __init__(self, order: int) -> None:
        self.order = whole("order", order)
        super().__init__(self.order * (self.order + 1) // 2)
        column, row = torch.triu_indices(self.order, self.order, device="cpu").unbind()
        self._lower = row * self.order + column
        position = torch.zeros(self.order, self.order, dtype=torch.int64, device="cpu")
        position[row, column] = position[column, row] = torch.arange(self.dim, device="cpu")
        self._position = position.flatten()
        self._root = torch.where(row == column, 1.0, torch.tensor(2.0, dtype=torch.float64, device="cpu").sqrt())

    @classmethod
    def examples(cls) -> list[Cone]:
        """Orders 1 to 4."""
        return [cls(order) for order in (1, 2, 3, 4)]

    def matrix(self, z: Tensor) -> Tensor:
        """(B, k) svecs -> (B, order, order) symmetric matrices."""
        entries = z / self._root.to(z)
        return entries.index_select(1, self._position.to(z.device)).unflatten(1, (self.order, self.order))

    def vector(self, matrix: Tensor) -> Tensor:
        """(B, order, order) symmetric matrices -> (B, k) svecs."""
        return matrix.flatten(1).index_select(1, self._lower.to(matrix.device)) * self._root.to(matrix)

    def decompose(self, z: Tensor) -> Parts:
        """Eigenvalues (B, order) and eigenvectors (B, order, order)."""
        values, vectors = torch.linalg.eigh(self.matrix(z))
        return values, vectors

    def point(self, parts: Parts) -> Tensor:
        """Eigenvalues clipped at 0."""
        values, vectors = parts
        return self.vector((vectors * values.relu()[:, None, :]) @ vectors.mT)

    def derivative(self, parts: Parts, v: Tensor) -> Tensor:
        """Divided differences in the eigenbasis."""
        values, vectors = parts
        turned = vectors.mT @ self.matrix(v) @ vectors
        return self.vector(vectors @ (clipped_differences(values) * turned) @ vectors.mT)

    def project_dual(self, z: Tensor) -> Tensor:
        """The same."""
        return self.project(z)
