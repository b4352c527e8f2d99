"""The convergence plot of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fixedpoint import files
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.records import labels
from fixedpoint.experiments.report.table import ERROR_NAMES

# Okabe & Ito's palette: told apart by people with any colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREYS = ("#404040", "#8c8c8c", "#bfbfbf")
FLOOR, CEILING = 1e-9, 1e2
"""Errors beyond are of no interest to the reader and would squeeze what is between."""


COLUMNS = 3


def convergence(records: Sequence[Record], path: Path) -> None:
    """Error against evaluations, written to `path` (PNG).

    The first panel has the median of every row; then each accelerator has a panel of its own with its medians and bands
    from the 10th to the 90th percentile, the outside solvers' medians behind them. An accelerator has one colour: solid
    with its best settings, dashed with its defaults where it was tuned. Outside solvers are dotted and grey.

    Raises:
        ModuleNotFoundError: matplotlib is missing (install the "plot" extra).
        OSError: the folder cannot be written.
    """
    from matplotlib.figure import Figure

    records = [record for record in records if record["shift"] is None]
    first = records[0]
    looks = list(_looks(records))
    names = list(dict.fromkeys(record["accelerator"] for _, record, _ in looks if not record["peer"]))
    columns = min(COLUMNS, 1 + len(names))
    rows = math.ceil((1 + len(names)) / columns)
    figure = Figure(figsize=(2.2 + 3.4 * columns, 0.6 + 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, name in zip(panels, [None, *names], strict=False):
        axes.set_title("all, medians" if name is None else name, loc="left", fontsize=10)
        axes.grid(True, which="major", alpha=0.25)
        for label, record, look in looks:
            if name is None or record["peer"] or record["accelerator"] == name:
                _draw(axes, label, record, look, band=name is not None and not record["peer"])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1 + len(names) :]:
        axes.set_axis_off()
    for place, axes in enumerate(panels[: 1 + len(names)]):
        if place + columns > len(names):  # nothing below it
            axes.set_xlabel("evaluations of the map")
            axes.tick_params(labelbottom=True)
    panels[0].set_yscale("log")
    panels[0].set_ylim(*_limits(records))
    panels[0].set_xlim(1, max(2, first["steps"]))
    figure.supylabel(str(ERROR_NAMES.get(first["error"], first["error"])), fontsize=10)
    setting = f" ({first['setting']})" if first["setting"] else ""
    figure.suptitle(
        f"{first['family']}{setting}, {first['instances']} held-out instances; panels: median and 10-90% band",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw(axes: Any, label: str, record: Record, look: dict[str, Any], *, band: bool) -> None:
    """One row: its median, and its band below it."""
    x = record["curve"]["evaluations"]
    axes.plot(x, _heights(record, "median"), label=label, **look)
    if band:
        # what is not finite reaches beyond the top of the picture
        low, high = ([CEILING * 10 if math.isnan(v) else v for v in _heights(record, q)] for q in ("p10", "p90"))
        axes.fill_between(
            x, low, high, color=look["color"], alpha=0.12 if look["linestyle"] == "--" else 0.25, linewidth=0
        )


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
                if colour >= len(COLOURS) and not faded:
                    style["linestyle"] = "-."  # the colours begin again
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
