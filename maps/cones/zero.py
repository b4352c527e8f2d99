"""The zero cone {0}; its dual is the whole space."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from maps.cones.cone import Cone


class Zero(Cone):
    """{0}: equality constraints."""

    separable: ClassVar[bool] = True

    def project(self, z: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(z)

    def project_dual(self, z: Tensor) -> Tensor:
        """Z itself."""
        return z
