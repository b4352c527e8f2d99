"""The convergence plot of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fixedpoint import files
from fixedpoint.evaluation import Record
from fixedpoint.report.records import label

# Okabe & Ito's palette: told apart by people with any colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FLOOR = 1e-9
"""Errors below are of no interest to the reader and would squeeze what is above."""


def convergence(records: Sequence[Record], path: Path) -> None:
    """Median error against evaluations with a band from the 10th to the 90th percentile, written to `path` (PNG).

    Tuned rows are solid, default rows dashed (of the same colour), peers grey.

    Raises:
        ModuleNotFoundError: matplotlib is missing (install the "plot" extra).
        OSError: the folder cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(record["accelerator"] for record in records if not record["peer"]))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    tuned = {record["accelerator"] for record in records if record["variant"] == "tuned"}
    greys = iter(("#444444", "#999999") * len(records))
    for record in records:
        name = record["accelerator"]
        colour = next(greys) if record["peer"] else colours[name]
        faded = not record["peer"] and name in tuned and record["variant"] != "tuned"
        style = ":" if record["peer"] else "--" if faded else "-"
        _line(axes, record, colour, style, band=not faded and not record["peer"])
    first = records[0]
    axes.set_yscale("log")
    axes.set_xlim(1, first["steps"])
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, FLOOR), min(high, 1e2))
    axes.set_xlabel("evaluations of the map")
    axes.set_ylabel("true KKT error" if first["error"] == "kkt" else "residual of the map")
    axes.set_title(
        f"{first['family']}: median of {first['instances']} held-out instances, band 10th to 90th percentile",
        loc="left",
        fontsize=11,
    )
    axes.grid(True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _line(axes: Any, record: Record, colour: str, style: str, *, band: bool) -> None:
    curve = record["curve"]
    x = curve["evaluations"]
    y = {
        name: [float("nan") if v is None else max(v, FLOOR / 10) for v in curve[name]]
        for name in ("p10", "median", "p90")
    }
    axes.plot(x, y["median"], style, color=colour, label=label(record), linewidth=1.8 if band else 1.3)
    if band:
        axes.fill_between(x, y["p10"], y["p90"], color=colour, alpha=0.13, linewidth=0)
