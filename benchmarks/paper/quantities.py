"""What is looked at along an iteration: residuals and errors of every evaluation, and entries of single instances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fixedpoint import Accelerator, Trajectory, unroll
from fixedpoint.experiments.evaluation import QUANTILES, normalized_residual
from fixedpoint.protocol import ProblemFamily
from fixedpoint.tensors import pytrees
from maps.scs.certify.kkt import kkt_terms
from maps.scs.family import ConicFamily

Quantities = dict[str, np.ndarray]
"""Name -> (T, B) after every evaluation; inf where it is not finite.

"residual": the paper's, || f(v) / tau_f - v / tau_v ||_2 without the entry of tau, v being SCS's state in its scaled
coordinates; for a map without tau || f(x) - x ||_2. "error": the family's own (for cone programs the true KKT error in
the original data). Of cone programs also "primal" and "dual": ||Ax + s - b|| and ||A'y + c||, infinity norms in the
original data, relative to 1 + the largest term.
"""

CHUNK = 64
"""Instances at a time, for the memory."""
DIGITS = 6
"""Significant digits of what is only drawn."""


def quantities(family: ProblemFamily, accelerator: Accelerator, problem: Any, steps: int) -> Quantities:
    """All quantities of `steps` evaluations from the accelerator's own start."""
    batch = pytrees.batch_size(problem, family.map.ranks)
    assert batch is not None
    pieces = []
    for begin in range(0, batch, CHUNK):
        index = torch.arange(begin, min(begin + CHUNK, batch))
        part = pytrees.take_rows(problem, family.map.ranks, index)
        with torch.no_grad():
            path = unroll(family.map, part, accelerator, steps)
            pieces.append(_of(family, part, path))
    return {name: np.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]}


def _of(family: ProblemFamily, problem: Any, path: Trajectory) -> Quantities:
    context = family.map.setup(problem)
    found: dict[str, list[Tensor]] = {}
    for k in range(path.x.shape[0]):
        output = pytrees.transform(lambda t, k=k: t[k], path.output)
        now = {
            "residual": normalized_residual(family.map, path.x[k], path.fx[k], context),
            "error": family.error(problem, output, path.residual[k]),
        }
        if isinstance(family, ConicFamily):
            terms = kkt_terms(problem, *output)
            now |= {name: terms[name][0] / (1 + terms[name][1]) for name in ("primal", "dual")}
        for name, values in now.items():
            found.setdefault(name, []).append(torch.where(torch.isfinite(values), values, torch.inf))
    return {name: torch.stack(values).numpy() for name, values in found.items()}


def curve(values: np.ndarray) -> dict[str, list[float | None]]:
    """10%, 50% and 90% quantiles (observed values) of (T, B) after every evaluation; None where not finite."""
    return {
        name: [_rounded(value) for value in np.quantile(values, q, axis=1, method="inverted_cdf")]
        for name, q in QUANTILES.items()
    }


def iterates(
    family: ProblemFamily, accelerator: Accelerator, problem: Any, steps: int, entries: list[list[list[int]]]
) -> list[list[list[list[float | None]]]]:
    """Entries of single instances after every evaluation.

    Args:
        family, accelerator, steps: as `quantities`.
        problem: the instances, few.
        entries: for each instance and each part of the output the indices of its entries.

    Returns:
        the same nesting, then (T,) values.
    """
    with torch.no_grad():
        output = unroll(family.map, problem, accelerator, steps).output
    return [
        [
            [[_rounded(float(value)) for value in part[:, i, entry]] for entry in chosen]
            for part, chosen in zip(parts_of(output), mine, strict=True)
        ]
        for i, mine in enumerate(entries)
    ]


def parts_of(output: Any) -> tuple[Tensor, ...]:
    """The tensors of an output: x, y and s of a cone program, or x alone."""
    return (output,) if isinstance(output, Tensor) else tuple(output)


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
