"""What a cone is to the rest of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Cone(ABC):
    """A closed convex cone K of vectors of length `dim`.

    Args:
        dim: k >= 0, the length of the vectors.

    Raises:
        ValueError: a negative or fractional length.
    """

    separable: ClassVar[bool] = False
    """Whether scaling each coordinate by a positive number of its own maps K onto itself."""

    def __init__(self, dim: int) -> None:
        if isinstance(dim, bool) or int(dim) != dim or dim < 0:
            raise ValueError(f"dim: expected a whole number >= 0, got {dim!r}")
        self.dim = int(dim)

    @abstractmethod
    def project(self, z: Tensor) -> Tensor:
        """(B, k) -> (B, k): the nearest point of K, in the Euclidean norm; differentiable, rows independent."""

    def project_dual(self, z: Tensor) -> Tensor:
        """(B, k) -> (B, k): the nearest point of the dual cone K*, by Moreau: z + P_K(-z)."""
        return z + self.project(-z)
