"""Pictures of iterates: how entries of x, y and s of one instance settle under different accelerators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.panels import headed, plain, save
from benchmarks.paper.pictures import label
from benchmarks.paper.problems import PaperProblem
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.plot import COLOURS

MARGIN = 0.35
"""Of the range of the solution's entries, above and below: what leaves it is cut off."""


def draw(problem: PaperProblem, records: Sequence[Record], solution: Record, instance: int, path: Path) -> None:
    """A column for each row, a line of panels for each part of the output; dotted: the solution.

    Args:
        problem: which.
        records: of part "iterates", of one run.
        solution: of part "solution", of the same run.
        instance: which of the drawn ones.
        path: PNG.
    """
    from matplotlib.figure import Figure

    parts, columns = problem.parts, len(records)
    figure = Figure(figsize=(0.5 + 2.7 * columns, 0.8 + 2.0 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), columns, sharex=True, sharey="row", squeeze=False)
    for line, part in enumerate(parts):
        goals = solution["values"][instance][line]
        span = max(max(goals) - min(goals), 1e-3 * max(map(abs, goals)), 1e-9)
        low, high = min(goals) - MARGIN * span, max(goals) + MARGIN * span
        for column, record in enumerate(records):
            axes = panels[line][column]
            for place, (values, goal) in enumerate(zip(record["lines"][instance][line], goals, strict=True)):
                colour = COLOURS[place % len(COLOURS)]
                axes.axhline(goal, color=colour, linewidth=0.9, linestyle=":", alpha=0.8)
                heights = inside(values, low - span, high + span)
                axes.plot(range(1, len(heights) + 1), heights, color=colour, linewidth=1.3)
            plain(axes, label(problem, record["row"]) if line == 0 else None)
        panels[line][0].set_ylim(low, high)
        panels[line][0].set_xlim(1, problem.steps)
        panels[line][0].set_ylabel(f"entries of {part}")
    for axes in panels[-1]:
        axes.set_xlabel("evaluations")
    headed(figure, f"{problem.name}, held-out instance {instance}: entries of all sizes; dotted: the solution")
    save(figure, path)


def inside(values: Sequence[float | None], low: float, high: float) -> list[float]:
    """The values, NaN where they are far outside: jumps from one side of a picture to the other are only stripes."""
    return [value if value is not None and low <= value <= high else math.nan for value in values]
