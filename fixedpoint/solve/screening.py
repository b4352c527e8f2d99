"""Instances whose data cannot be used: found before a solve, replaced in it, and blank after it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from fixedpoint.protocol import FixedPointMap
from fixedpoint.solve.loop import LoopResult
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_readable, where_rows

OnInvalid = Literal["raise", "mark"]


def screened(map: FixedPointMap, problem: Any, on_invalid: OnInvalid) -> tuple[Any, Tensor | None]:
    """The problem with unusable rows replaced by a good one, and which they were (None when all are good).

    Raises:
        ValueError: a fault with on_invalid="raise", or no usable instance at all.
    """
    ranks = map.ranks
    parts = pytrees.tensors(problem)
    if not all(is_readable(t) for t in parts.values()):
        return problem, None
    with torch.no_grad():
        size = next(t.shape[0] for name, t in parts.items() if pytrees.is_row(name, t, ranks))
        faults = pytrees.nonfinite(problem, ranks, size)
        bad = torch.stack(list(faults.values())).any(0)
        if not bool(bad.all()):  # the map's own tests may assume finite data
            clean = pytrees.replace_rows(problem, ranks, bad) if bool(bad.any()) else problem
            faults |= {message: rows & ~bad for message, rows in map.faults(clean).items()}
        bad = torch.stack(list(faults.values())).any(0)
    if not bool(bad.any()):
        return problem, None
    if on_invalid == "raise" or bool(bad.all()):
        found = [f"{message} in instance(s) {_listed(rows)}" for message, rows in faults.items() if bool(rows.any())]
        hint = "; no instance can be used" if bool(bad.all()) else ' (on_invalid="mark" solves the others)'
        raise ValueError("; ".join(found) + hint)
    return pytrees.replace_rows(problem, ranks, bad), bad


def _listed(rows: Tensor) -> str:
    """The instances in a mask (B,): the first eight, and how many there are."""
    found = torch.nonzero(rows).flatten().tolist()
    return f"{found[:8]}" if len(found) <= 8 else f"{found[:8]} ({len(found)} in all)"


def blank(result: LoopResult, invalid: Tensor) -> LoopResult:
    """The result with NaN for the numbers of the rows in `invalid` (B,)."""

    def nan(t: Tensor) -> Tensor:
        return where_rows(invalid, torch.full_like(t, torch.nan), t) if t.is_floating_point() else t

    return LoopResult(
        x=nan(result.x),
        output=pytrees.transform(nan, result.output),
        residual=nan(result.residual),
        status=result.status,
        evaluations=torch.where(invalid, 0, result.evaluations),
    )
