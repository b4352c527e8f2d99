"""Factors by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from maps.scs import linear_systems
from maps.scs.linear_systems import KktMatrix, LinearSystem
from maps.scs.linear_systems.registry import SOLVERS


def factor(name: str, A: Any, P: Any, R_y: Tensor, rho_x: float, **options: Any) -> LinearSystem:
    """K by the backend of a name."""
    return linear_systems.factor(SOLVERS[name], KktMatrix(A, P, R_y, rho_x, **options))
