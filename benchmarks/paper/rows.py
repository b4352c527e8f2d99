"""The rows of an experiment: plain, SCS's own acceleration, Anderson's at its best, and what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from accelerators.safeguard import Safeguarded
from benchmarks.paper.problems import PaperProblem
from fixedpoint import Accelerator, accelerators
from fixedpoint.plugins import checkpoint

PLAIN, OWN = "plain", "SCS's own AA"
ANDERSON = {"AA-I": "anderson-1", "AA-II": "anderson-2"}
"""Row -> accelerator, applied at every evaluation, with the chosen memory and start."""
NEURAL = {"GRU": "gru", "LSTM": "lstm", "coordinate GRU": "coordinate-gru"}
"""Row -> training that its weights come from."""
ABLATION = {
    "coordinate GRU, bare": "coordinate-gru",
    "residual": "coordinate-gru, residual",
    "raw residual": "coordinate-gru, raw residual",
}
"""Row, two of them called after their loss -> training; without the safeguard, which would hide what a loss does."""


class Row(NamedTuple):
    """One row."""

    name: str
    kind: str
    """"plain", "classical", "neural" or "ablation"."""
    accelerator: str
    """Registered name, or that of the training."""


def planned(problem: PaperProblem) -> list[Row]:
    """All rows of a problem, in the order of the tables."""
    rows = [Row(PLAIN, "plain", "picard")]
    rows += [Row(OWN, "classical", "scs-anderson")] if problem.conic else []
    rows += [Row(name, "classical", accelerator) for name, accelerator in ANDERSON.items()]
    rows += [Row(name, "neural", training) for name, training in NEURAL.items()]
    rows += [Row(name, "ablation", training) for name, training in ABLATION.items()] if problem.conic else []
    return rows


def trained(row: Row) -> bool:
    """Whether it needs weights."""
    return row.kind in ("neural", "ablation")


def make(row: Row, options: Mapping[str, Any], weights: Path | None) -> Accelerator:
    """The accelerator of a row.

    Args:
        row: which.
        options: of a classical accelerator.
        weights: file of a trained one.
    """
    if weights is None:
        made = accelerators.create(row.accelerator, **options)
        assert isinstance(made, Accelerator)
        return made
    loaded = checkpoint.load(weights)
    if row.kind == "ablation" and isinstance(loaded, Safeguarded):
        return loaded.inner
    return loaded
