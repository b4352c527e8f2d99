"""The convergence plot of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fixedpoint import files
from fixedpoint.evaluation import Record
from fixedpoint.report.records import labels
from fixedpoint.report.table import ERROR_NAMES

# Okabe & Ito's palette: told apart by people with any colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#444444", "#999999")
FLOOR, CEILING = 1e-9, 1e2
"""Errors beyond are of no interest to the reader and would squeeze what is between."""


def convergence(records: Sequence[Record], path: Path) -> None:
    """Error against evaluations, the median and the 90th percentile side by side, written to `path` (PNG).

    An accelerator has one colour: solid with its best settings, dashed with its defaults where it was tuned. Outside
    solvers are dotted and grey.

    Raises:
        ModuleNotFoundError: matplotlib is missing (install the "plot" extra).
        OSError: the folder cannot be written.
    """
    from matplotlib.figure import Figure

    first = records[0]
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, curve, title in zip(panels, ("median", "p90"), ("median", "90th percentile"), strict=True):
        for label, record, look in _looks(records):
            axes.plot(record["curve"]["evaluations"], _heights(record, curve), label=label, **look)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("evaluations of the map")
        axes.grid(True, which="major", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yscale("log")
    panels[0].set_ylim(*_limits(records))
    panels[0].set_xlim(1, max(2, first["steps"]))
    panels[0].set_ylabel(ERROR_NAMES.get(first["error"], first["error"]))
    figure.suptitle(f"{first['family']}, {first['instances']} held-out instances", x=0.01, ha="left", fontsize=12)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _looks(records: Sequence[Record]) -> Iterator[tuple[str, Record, dict[str, Any]]]:
    """(label, record, how to draw it), in the order of the legend: an accelerator's rows together, then the peers."""
    names = list(dict.fromkeys(record["accelerator"] for record in records if not record["peer"]))
    tuned = {record["accelerator"] for record in records if record["variant"] == "tuned"}
    named = list(zip(labels(records), records, strict=True))
    for colour, name in enumerate(names):
        for label, record in named:
            if not record["peer"] and record["accelerator"] == name:
                faded = name in tuned and record["variant"] != "tuned"
                style = {"linestyle": "--", "linewidth": 1.2} if faded else {"linestyle": "-", "linewidth": 2.0}
                yield label, record, {"color": COLOURS[colour % len(COLOURS)], **style}
    peers = [(label, record) for label, record in named if record["peer"]]
    for grey, (label, record) in enumerate(peers):
        yield label, record, {"color": GREYS[grey % len(GREYS)], "linestyle": ":", "linewidth": 1.8}


def _heights(record: Record, curve: str) -> list[float]:
    """A curve to draw: gaps where it is not finite; what is below the floor stays below, but drawable."""
    return [math.nan if v is None else max(v, FLOOR / 10) for v in record["curve"][curve]]


def _limits(records: Sequence[Record]) -> tuple[float, float]:
    """The y-axis: whole decades around the curves, within floor and ceiling."""
    seen = [v for r in records for curve in ("median", "p90") for v in _heights(r, curve) if math.isfinite(v)] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(max(min(seen), FLOOR), CEILING / 10)))
    high = 10.0 ** math.ceil(math.log10(max(seen)))
    return low, min(max(high, 10 * low), CEILING)
