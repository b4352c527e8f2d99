"""Showing and saving the solutions of `fixedpoint solve`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from torch import Tensor

from fixedpoint import files
from fixedpoint.experiments.report.style import plain
from fixedpoint.solution import Solution
from fixedpoint.tensors import pytrees

_MOST = 20
"""Instances shown; the file holds all."""


def table(solution: Solution, error: Tensor, error_kind: str, seconds: float) -> RenderableType:
    """Status, evaluations and errors of every instance."""
    batch = solution.status.shape[0]
    done = int(solution.converged.sum())
    caption = f"{done} of {batch} converged; {1e3 * seconds / batch:.3g} ms per instance in a batch of {batch}"
    if batch > _MOST:
        caption += f"; the first {_MOST} are shown"
    shown = plain()
    for name in ("instance", "status", "evaluations", "residual", *(["KKT error"] if error_kind == "kkt" else [])):
        shown.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    for i, status in enumerate(solution.statuses[:_MOST]):
        cells = [str(i), status.name, str(int(solution.evaluations[i])), f"{float(solution.residual[i]):.2e}"]
        shown.add_row(*cells, *([f"{float(error[i]):.2e}"] if error_kind == "kkt" else []))
    return Group(shown, "", caption)


def save(path: Path, solution: Solution, error: Tensor) -> None:
    """Write an .npz file, one row per instance: status, evaluations, residual, error, x and the map's output.

    An output of several parts is written as output_NAME for each.
    """
    arrays = {name: getattr(solution, name) for name in ("x", "status", "evaluations", "residual")} | {"error": error}
    for name, part in pytrees.tensors(solution.output).items():
        arrays["output" if part is solution.output else f"output_{name}"] = part
    with files.replacing(path) as temporary, temporary.open("wb") as file:  # given a name, numpy would append .npz
        np.savez(file, **{name: t.numpy() for name, t in arrays.items()})
