"""Pictures from records alone: residuals and error against evaluations, and training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.panels import headed, plain, save
from benchmarks.paper.problems import PaperProblem
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.plot import COLOURS, GREYS

AXES = {
    "residual": "fixed-point residual, tau-normalised",
    "primal": "primal residual",
    "dual": "dual residual",
    "error": "KKT error",
}
"""Quantity -> title of its panel."""
PLAIN_AXES = {"residual": "fixed-point residual", "error": "gradient mapping, relative"}
"""The same of a problem without cones."""
LOOKS: dict[str, dict[str, Any]] = {
    "plain": {"color": "#000000", "linestyle": "-"},
    "SCS's own AA": {"color": GREYS[1], "linestyle": ":"},
    "AA-I": {"color": COLOURS[4], "linestyle": "--"},
    "AA-II": {"color": COLOURS[0], "linestyle": "--"},
    "GRU": {"color": COLOURS[2], "linestyle": "-"},
    "LSTM": {"color": COLOURS[1], "linestyle": "-"},
    "coordinate GRU": {"color": COLOURS[3], "linestyle": "-"},
    "coordinate GRU, bare": {"color": COLOURS[3], "linestyle": "-"},
    "residual": {"color": COLOURS[0], "linestyle": "-"},
    "raw residual": {"color": COLOURS[1], "linestyle": "--"},
}
"""Row -> how its line looks, the same in every picture."""
BEYOND = 1e9
"""Where a band ends that is not finite: above every picture."""
BANDED = ("plain", "AA-II", "LSTM", "coordinate GRU")
"""Rows with a band: with those of all rows nothing could be told apart."""


def titles(problem: PaperProblem) -> dict[str, str]:
    """Quantity -> what its panel is called."""
    return AXES if problem.conic else PLAIN_AXES


def label(problem: PaperProblem, row: str) -> str:
    """A row's name for readers."""
    return problem.plain if row == "plain" else row


def spoken(training: str) -> str:
    """The name of a training for readers."""
    return training.replace("-gru", " GRU").replace("gru", "GRU").replace("lstm", "LSTM")


def convergence(problem: PaperProblem, records: Sequence[Record], path: Path) -> None:
    """Every quantity in a panel of its own: medians, and bands from the 10th to the 90th percentile.

    Args:
        problem: which.
        records: of part "row", of one run.
        path: PNG.
    """
    from matplotlib.figure import Figure

    names = titles(problem)
    columns = 2
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(9.6, 0.9 + 3.3 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, squeeze=False).flatten()
    for axes, (name, title) in zip(panels, names.items(), strict=True):
        for record in records:
            _line(axes, problem, record, name)
        _dress(axes, title, problem.steps)
        axes.set_ylim(*limits([record["curves"][name] for record in records]))
    for axes in panels[-columns:]:
        axes.set_xlabel("evaluations of the map")
    banded = ", ".join(label(problem, row) for row in BANDED if any(r["row"] == row for r in records))
    headed(
        figure,
        f"{problem.name}: {records[0]['instances']} held-out instances, median and 10-90% band ({banded})",
    )
    _legend(figure, panels[0], len(records))
    save(figure, path)


def ablation(problem: PaperProblem, records: Sequence[Record], path: Path) -> None:
    """Residual and error of the rows of the ablation, beside the plain iteration: medians and bands."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, name in zip(panels, ("residual", "error"), strict=True):
        for record in records:
            _line(axes, problem, record, name, band=True)
        _dress(axes, titles(problem)[name], problem.steps)
        axes.set_ylim(*limits([record["curves"][name] for record in records]))
        axes.set_xlabel("evaluations of the map")
    headed(
        figure,
        f"{problem.name}: the same training with and without tau-normalisation, no safeguard; median and 10-90% band",
    )
    _legend(figure, panels[0], len(records))
    save(figure, path)


def training(problem: PaperProblem, stages: Sequence[Sequence[Record]], path: Path) -> None:
    """Loss against updates: a panel for each training, its stages one after the other.

    Args:
        problem: which.
        stages: of each training its records of part "training", the first stage first.
        path: PNG.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(stages))
    lines = math.ceil(len(stages) / columns)
    figure = Figure(figsize=(3.4 * columns + 0.4, 0.6 + 2.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, mine in zip(panels, stages, strict=False):
        begin = 0.0
        for place, record in enumerate(mine):
            points, plan = record["loss"], record["plan"]
            axes.plot(
                [begin + update for update, _, _ in points],
                [loss for _, loss, _ in points],
                color=COLOURS[place % len(COLOURS)],
                label=f"{plan['loss']}, {record['minutes']:.1f} min",
                linewidth=1.6,
            )
            begin += plan["updates"]
            if record is not mine[-1]:
                axes.axvline(begin, color=GREYS[2], linewidth=1.0)
        plain(axes, spoken(mine[-1]["row"]))
        axes.grid(True, alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
        axes.set_xlabel("updates")
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("training loss")
    headed(figure, f"{problem.name}: training")
    save(figure, path)


def limits(curves: Sequence[dict[str, list[float | None]]]) -> tuple[float, float]:
    """A logarithmic axis that shows every median, and the lower ends of the bands as far as a decade below these."""
    medians = [v for curve in curves for v in curve["median"] if v is not None and v > 0] or [1.0]
    low, high = min(medians), max(medians)
    return 10 ** (math.floor(2 * math.log10(low)) / 2 - 0.25), 10 ** (math.ceil(2 * math.log10(high)) / 2 + 0.25)


def _line(axes: Any, problem: PaperProblem, record: Record, name: str, *, band: bool | None = None) -> None:
    """Median and band; where a median is not finite the line has a gap, and a band goes through the top."""
    curve, look = record["curves"][name], LOOKS[record["row"]]
    x = range(1, len(curve["median"]) + 1)
    heights = [math.nan if value is None else value for value in curve["median"]]
    axes.plot(x, heights, label=label(problem, record["row"]), linewidth=1.8, **look)
    if record["row"] in BANDED if band is None else band:
        low, high = ([BEYOND if value is None else value for value in curve[q]] for q in ("p10", "p90"))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)


def _dress(axes: Any, title: str, steps: int) -> None:
    axes.set_yscale("log")
    axes.set_xlim(1, steps)
    axes.grid(True, which="major", alpha=0.25)
    plain(axes, title)


def _legend(figure: Any, axes: Any, count: int) -> None:
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=count, frameon=False, fontsize=9, columnspacing=1.4)
