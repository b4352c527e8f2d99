"""The arguments of the SCS map, checked at the door."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maps.cones import ProductCone
from maps.scs.linear_systems import KINDS


def check(settings: dict[str, Any]) -> None:
    """Raise ValueError for an argument of `SCS` outside its range; the message names it."""
    n = settings["n"]
    if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1:
        raise ValueError(f"n: expected a whole number >= 1, got {n!r}")
    for name in ("scale", "zero_cone_factor", "rho_x", "tau_factor"):
        value = settings[name]
        if not _is_number(value) or not 1e-100 < value < 1e100:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    if not isinstance(settings["normalize"], bool) and settings["normalize"] != "shared":
        raise ValueError(f'normalize: expected True, False or "shared", got {settings["normalize"]!r}')
    if not isinstance(settings["adaptive_scale"], bool):
        raise ValueError(f"adaptive_scale: expected True or False, got {settings['adaptive_scale']!r}")
    eliminate = settings["eliminate"]
    if not isinstance(eliminate, bool):
        raise ValueError(f"eliminate: expected True or False, got {eliminate!r}")
    if eliminate and settings["adaptive_scale"]:
        raise ValueError("eliminate: it needs a scale that stays what it is, so adaptive_scale=False")
    if eliminate and settings["linear_solver"] in ("sparse", "cg"):
        raise ValueError(f'eliminate: not with linear_solver="{settings["linear_solver"]}", use "auto"')
    alpha, weights, interval = settings["alpha"], settings["error_weights"], settings["check_interval"]
    if not _is_number(alpha) or not 0 < alpha < 2:
        raise ValueError(f"alpha: expected a number in (0, 2), got {alpha!r}")
    if len(weights) != 2 or not all(_is_number(w) and 0 <= w < float("inf") for w in weights) or max(weights) <= 0:
        raise ValueError(f"error_weights: expected two numbers >= 0, one of them positive, got {weights}")
    if not _is_number(settings["eps_infeas"]) or not 0 <= settings["eps_infeas"] < float("inf"):
        raise ValueError(f"eps_infeas: expected a number >= 0, got {settings['eps_infeas']!r}")
    if isinstance(interval, bool) or not isinstance(interval, numbers.Integral) or interval < 1:
        raise ValueError(f"check_interval: expected a whole number >= 1, got {interval!r}")
    first = settings["first_check"]
    if first is not None and (isinstance(first, bool) or not isinstance(first, numbers.Integral) or first < 1):
        raise ValueError(f"first_check: expected a whole number >= 1 or None, got {first!r}")
    if first is not None and settings["adaptive_scale"]:
        raise ValueError("first_check: the scale adapts at every check_interval, so not with adaptive_scale=True")
    if settings["dtype"] not in (None, torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32, torch.float64 or None, got {settings['dtype']!r}")
    if settings["linear_solver"] not in KINDS:
        raise ValueError(f"linear_solver: expected one of {', '.join(KINDS)}, got {settings['linear_solver']!r}")


def row_weights(weights: Sequence[float], cone: ProductCone) -> Tensor:
    """(m - equations,) float64 the weights of rows that are not equations, checked.

    Raises:
        ValueError: another number of them, one that is not positive and finite, different ones inside a block.
    """
    try:
        found = torch.as_tensor(weights, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights: expected positive numbers ({error})") from None
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
