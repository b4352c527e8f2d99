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
    """Whether scaling each coordinate by a positive number of its own maps K onto a cone of the same kind."""

    def __init__(self, dim: int) -> None:
        if isinstance(dim, bool) or int(dim) != dim or dim < 0:
            raise ValueError(f"dim: expected a whole number >= 0, got {dim!r}")
        self.dim = int(dim)

    @classmethod
    def examples(cls) -> list[Cone]:
        """Small cones of this kind that `check_cone` and `fixedpoint check cone` test; override where `dim` is not all."""
        return [cls(dim) for dim in (1, 2, 3, 5)]

    @abstractmethod
    def project(self, z: Tensor) -> Tensor:
        """(B, k) -> (B, k): the nearest point of K, in the Euclidean norm; differentiable, rows independent."""

    def project_dual(self, z: Tensor) -> Tensor:
        """(B, k) -> (B, k): the nearest point of the dual cone K*, by Moreau: z + P_K(-z)."""
        return z + self.project(-z)


class Dual(Cone):
    """The dual cone of another cone."""

    def __init__(self, primal: Cone) -> None:
        super().__init__(primal.dim)
        self.primal, self.separable = primal, primal.separable  # type: ignore[misc]

    def project(self, z: Tensor) -> Tensor:
        """The primal's projection onto its dual."""
        return self.primal.project_dual(z)

    def project_dual(self, z: Tensor) -> Tensor:
        """The primal's projection: the dual of the dual of a closed convex cone is the cone itself."""
        return self.primal.project(z)
