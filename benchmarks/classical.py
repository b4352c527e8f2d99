"""Classical acceleration on every shipped family: the baseline that learned accelerators must beat.

    make bench        (some minutes)

Writes records and a plot for each family under `benchmarks/results`, and `benchmarks/RESULTS.md` from those records.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from fixedpoint import comparison, files
from fixedpoint.report import plot, records, table

HERE = Path(__file__).parent
ACCELERATORS = ("picard", "relaxed", "momentum", "anderson-1", "anderson-2", "safeguarded")
RUNS = {"lasso": 60, "diabetes-lasso": 60, "elastic-net": 200}
"""Evaluations per family."""
INSTANCES, SEED = 64, 0


def main() -> None:
    """Measure every family, then write the report from what was recorded."""
    for family, steps in RUNS.items():
        print(f"{family} ...", flush=True)
        folder = HERE / "results" / family
        found = comparison.compare(
            family,
            ACCELERATORS,
            instances=INSTANCES,
            steps=steps,
            seed=SEED,
            settings=comparison.settings_file(family),
        )
        records.write(folder, found)
        plot.convergence(found, folder / "convergence.png")
    report()


def report() -> None:
    """`RESULTS.md` from the records on disk."""
    parts = ["# Classical acceleration, measured", "Made by `make bench` from the records in `results/`."]
    for family in RUNS:
        found = records.read(HERE / "results" / family)
        text = io.StringIO()
        Console(width=table.WIDTH, file=text).print(table.comparison(found))
        versions = ", ".join(f"{name} {version}" for name, version in found[0]["versions"].items())
        parts += [f"## {family}", "```\n" + text.getvalue().rstrip() + "\n```"]
        parts += [f"![convergence](results/{family}/convergence.png)", f"Revision {found[0]['revision']}; {versions}."]
    files.write_text(HERE / "RESULTS.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
