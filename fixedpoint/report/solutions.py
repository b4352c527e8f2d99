"""Showing and saving the solutions of `fixedpoint solve`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from torch import Tensor

from fixedpoint import files, leaves
from fixedpoint.solution import Solution

_MOST = 20
"""Instances shown; the file holds all."""


def table(solution: Solution, error: Tensor, error_kind: str, seconds: float) -> Table:
    """Status, evaluations and errors of every instance."""
    batch = solution.status.shape[0]
    done = int(solution.converged.sum())
    caption = f"{done} of {batch} converged; {1e3 * seconds / batch:.3g} ms per instance in a batch of {batch}"
    if batch > _MOST:
        caption += f"; the first {_MOST} are shown"
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    for name in ("instance", "status", "evaluations", "residual", *(["KKT error"] if error_kind == "kkt" else [])):
        shown.add_column(name, justify="left" if name == "status" else "right")
    for i, status in enumerate(solution.statuses[:_MOST]):
        cells = [str(i), status.name, str(int(solution.evaluations[i])), f"{float(solution.residual[i]):.2e}"]
        shown.add_row(*cells, *([f"{float(error[i]):.2e}"] if error_kind == "kkt" else []))
    return shown


def save(path: Path, solution: Solution, error: Tensor) -> None:
    """Write an .npz file: status, evaluations, residual, error, x and the map's output, one row per instance."""
    arrays = {name: getattr(solution, name) for name in ("x", "status", "evaluations", "residual")}
    output = {name if name != "problem" else "output": t for name, t in leaves.tensors(solution.output).items()}
    arrays |= {f"output_{name}" if name in arrays else name: t for name, t in output.items()}
    with files.replacing(path.with_suffix(".npz")) as temporary:
        np.savez(temporary, error=error.numpy(), **{name: t.numpy() for name, t in arrays.items()})
