"""Milliseconds per instance against the batch size, both axes logarithmic: a column per family, a row per target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.store import text_of
from fixedpoint import files
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.plot import COLOURS, GREYS


def draw(families: Sequence[Sequence[Record]], path: Path) -> None:
    """Draw the records of each family to `path` (PNG).

    Raises:
        ModuleNotFoundError: matplotlib is missing (install the "plot" extra).
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    targets = sorted({record["target"] for records in families for record in records}, reverse=True)
    batches = sorted({record["batch"] for records in families for record in records})
    rows = list(dict.fromkeys((r["peer"], r["solver"], r["variant"]) for records in families for r in records))
    rows.sort(key=lambda row: row[0])
    figure = Figure(figsize=(1.2 + 3.3 * len(families), 1.2 + 2.4 * len(targets)), layout="constrained")
    panels = figure.subplots(len(targets), len(families), sharex=True, sharey="col", squeeze=False)
    for column, records in enumerate(families):
        for line, target in enumerate(targets):
            axes = panels[line][column]
            for row in rows:
                mine = [r for r in records if (r["peer"], r["solver"], r["variant"]) == row and r["target"] == target]
                mine.sort(key=lambda r: r["batch"])
                if mine:
                    x, y = [r["batch"] for r in mine], [r["ms_per_instance"]["median"] for r in mine]
                    axes.plot(x, y, label=", ".join(row[1:]), **look(row, rows))
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(batches, [str(batch) for batch in batches])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.grid(True, which="major", alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{records[0]['family']}, to {text_of(target)}", loc="left", fontsize=10)
        panels[-1][column].set_xlabel("instances in a batch")
    for line in range(len(targets)):
        panels[line][0].set_ylabel("ms per instance")
    handles, names = [], []
    for axes in panels.flat:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            if name not in names:
                handles.append(handle)
                names.append(name)
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def look(row: tuple[bool, str, str], rows: Sequence[tuple[bool, str, str]]) -> dict[str, object]:
    """Ours in colours, others grey: dotted where they were told when to stop."""
    alike = [other for other in rows if other[0] == row[0]]
    if not row[0]:
        return {"color": COLOURS[alike.index(row) % len(COLOURS)], "marker": "o", "linewidth": 2.0, "markersize": 4}
    plain = [other for other in alike if not other[2].endswith("oracle")]
    base = (row[0], row[1], row[2].removesuffix(", oracle"))
    grey = GREYS[plain.index(base) % len(GREYS)] if base in plain else GREYS[0]
    style = ":" if row[2].endswith("oracle") else "--"
    return {"color": grey, "linestyle": style, "marker": "s", "markersize": 3, "linewidth": 1.5}
