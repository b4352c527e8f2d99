"""What may be chosen of the SCS map, checked at the door."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fixedpoint.checked import require_whole
from maps.cones import ProductCone
from maps.scs import linear_systems


@dataclass(frozen=True)
class SCSSettings:
    """What may be chosen of the SCS map; each option is named here and nowhere else.

    Raises:
        ValueError: a value outside its range; the message names it.
    """

    normalize: bool | str = True
    """Scale the data as SCS does; "shared": by diagonals that depend on A and P alone, so that a batch that shares
    these shares one factorization."""
    scale: float = 0.1
    """SCS's dual scale, > 0."""
    zero_cone_factor: float = 1000.0
    """How much heavier rows of the zero cone weigh (SCS: 1000), > 0."""
    alpha: float = 1.5
    """SCS's relaxation, in (0, 2)."""
    rho_x: float = 1e-6
    """Weight of x, > 0."""
    tau_factor: float = 10.0
    """Weight of tau (SCS: 10), > 0. Large values behave as tau fixed at 1."""
    weights: Sequence[float] | None = None
    """(m - equations,) positive numbers, one for each row that is not an equation, where R_y is weights / scale; None:
    all 1. Rows of a cone that is not separable have one weight."""
    eliminate: bool = False
    """The limit rho_x -> 0, zero_cone_factor -> infinity (`eliminated`): x and the duals of equations are solved for
    exactly in every step and leave the state, which has one number for each inequality and one for tau. Fewer numbers
    to move, store and learn; `rho_x` and `zero_cone_factor` have no say. Not with `adaptive_scale`, nor with linear
    solvers that cannot eliminate; of no effect without inequalities. x and these duals must be determined by the rest:
    equations that (nearly) repeat each other are refused."""
    adaptive_scale: bool = False
    """Let a solve change the scale of each instance, by SCS's scalar rule; it then has a factorization of its own."""
    error_weights: tuple[float, float] = (1.0, 1.0)
    """(absolute, relative) of the residual, >= 0 and not both 0."""
    eps_infeas: float = 1e-7
    """Violation of a certificate, relative to its inner product, >= 0; 0 never certifies."""
    linear_solver: str = "auto"
    """"dense", "condensed" (sparse, some unknowns eliminated first), "sparse" (SuperLU), "cg" (conjugate gradients),
    another backend's name, or "auto"."""
    dtype: torch.dtype | None = None
    """Of the iteration, torch.float32 or torch.float64; None: that of the data."""

    def __post_init__(self) -> None:
        if self.weights is not None and not isinstance(self.weights, tuple):
            try:
                object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
            except (TypeError, ValueError) as error:
                raise ValueError(f"weights: expected positive numbers ({error})") from None
        for name in ("scale", "zero_cone_factor", "rho_x", "tau_factor"):
            value = getattr(self, name)
            if not _is_number(value) or not 1e-100 < value < 1e100:
                raise ValueError(f"{name}: expected a positive number, got {value!r}")
        if not isinstance(self.normalize, bool) and self.normalize != "shared":
            raise ValueError(f'normalize: expected True, False or "shared", got {self.normalize!r}')
        for name in ("adaptive_scale", "eliminate"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if self.eliminate and self.adaptive_scale:
            raise ValueError("eliminate: it needs a scale that stays what it is, so adaptive_scale=False")
        if not _is_number(self.alpha) or not 0 < self.alpha < 2:
            raise ValueError(f"alpha: expected a number in (0, 2), got {self.alpha!r}")
        weights = self.error_weights
        if len(weights) != 2 or not all(_is_number(w) and 0 <= w < float("inf") for w in weights) or max(weights) <= 0:
            raise ValueError(f"error_weights: expected two numbers >= 0, one of them positive, got {weights}")
        if not _is_number(self.eps_infeas) or not 0 <= self.eps_infeas < float("inf"):
            raise ValueError(f"eps_infeas: expected a number >= 0, got {self.eps_infeas!r}")
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype: expected torch.float32, torch.float64 or None, got {self.dtype!r}")
        known = linear_systems.names()
        if self.linear_solver not in known:
            raise ValueError(f"linear_solver: expected one of {', '.join(known)}, got {self.linear_solver!r}")
        if self.eliminate and not linear_systems.can_eliminate(self.linear_solver):
            raise ValueError(f'eliminate: not with linear_solver="{self.linear_solver}", use "auto"')

    @property
    def of_iteration(self) -> SCSSettings:
        """Those that the iteration depends on, whatever is asked of its result."""
        return replace(self, error_weights=(1.0, 1.0), eps_infeas=0.0)

    @property
    def coordinates(self) -> dict[str, Any]:
        """Those that change the meaning of the coordinates of the state, JSON-able."""
        names = ["normalize", "scale", "zero_cone_factor", "rho_x", "tau_factor", "alpha", "adaptive_scale"]
        found = {name: getattr(self, name) for name in names}
        return found if self.weights is None else {**found, "weights": list(self.weights)}


NAMES = frozenset(field.name for field in fields(SCSSettings))
"""Of all settings."""


class Formulation:
    """The iteration for programs of one size: what `setup` and the step need to know of the map.

    Args:
        n: number of variables.
        cone: K.
        settings: what was chosen.

    Raises:
        ValueError: an n that is no whole number >= 1, weights that do not fit the cone.
    """

    def __init__(self, n: int, cone: ProductCone, settings: SCSSettings) -> None:
        require_whole(n=n)
        self.n, self.m, self.cone, self.settings = int(n), cone.dim, cone, settings
        self.row_weights = None if settings.weights is None else row_weights(settings.weights, cone)
        self.eliminates = settings.eliminate and self.m > cone.equalities  # else there would be nothing left
        self.absent = self.n + cone.equalities if self.eliminates else 0
        """Coordinates at the front of (x, y, tau) that the state does not have."""
        self.size = self.n + self.m + 1 - self.absent
        """Of the state."""

    @property
    def coordinates(self) -> dict[str, Any]:
        """What the coordinates of the state mean, JSON-able."""
        found = self.settings.coordinates
        if self.eliminates:
            found = {k: v for k, v in found.items() if k not in ("rho_x", "zero_cone_factor")} | {"eliminate": True}
        return {"map": "scs", "n": self.n, "cones": self.cone.spec, **found}


def row_weights(weights: Sequence[float], cone: ProductCone) -> Tensor:
    """(m - equations,) float64 the weights of rows that are not equations, checked.

    Raises:
        ValueError: another number of them, one that is not positive and finite, different ones inside a block.
    """
    found = torch.tensor(weights, dtype=torch.float64, device="cpu")
    count = cone.dim - cone.equalities
    if found.shape != (count,):
        raise ValueError(f"weights: expected {count} numbers, one for each inequality, got {tuple(found.shape)}")
    if wrong := [i for i, weight in enumerate(found.tolist()) if not 1e-100 < weight < 1e100]:
        raise ValueError(
            f"weights: expected positive numbers, got {float(found[wrong[0]])!r} for inequality {wrong[0]}"
        )
    whole = torch.cat([found.new_ones(cone.equalities), found])[None]
    most, least = (cone.share_within_blocks(one, "max", box=True) for one in (whole, -whole))
    uneven = (most != -least)[0].nonzero()
    if len(uneven):
        row = int(uneven[0]) - cone.equalities
        raise ValueError(
            f"weights: expected one weight for all rows of a block, but in that of inequality {row} they differ"
        )
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
