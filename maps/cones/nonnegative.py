"""The nonnegative orthant, its own dual."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from maps.cones.cone import Cone


class Nonnegative(Cone):
    """{z : z >= 0}: inequality constraints. Its derivative at 0 is taken to be 0."""

    separable: ClassVar[bool] = True

    def project(self, z: Tensor) -> Tensor:
        """max(z, 0)."""
        return z.relu()

    def project_dual(self, z: Tensor) -> Tensor:
        """The same."""
        return z.relu()
