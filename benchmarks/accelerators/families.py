"""Every shipped family: classical, trained and trivially learned accelerators, on held-out and on shifted instances.

    make bench                                          (about half an hour)
    .venv/bin/python -m benchmarks.accelerators.families pagerank  (some; the report is made from all records)
    .venv/bin/python -m benchmarks.accelerators.families report  (the report alone)

Writes records and a plot for each family under `benchmarks/results`, and `benchmarks/RESULTS.md` from those records and
from `benchmarks/accelerators/failures.md`, which is written by hand.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks import store
from benchmarks.accelerators import generalisation, seeds, sizes
from benchmarks.tables import block
from fixedpoint import files
from fixedpoint.experiments.comparison import compare
from fixedpoint.experiments.report import plot, records, table
from fixedpoint.plugins.registry import families

HERE = Path(__file__).parent
PAGE = store.RESULTS.parent / "RESULTS.md"
FAILURES = HERE / "failures.md"
"""What was tried in vain: the last section of the report."""
CLASSICAL = ("picard", "momentum", "anderson-1", "anderson-2", "safeguarded")
TRIVIAL = ("mean-start+anderson-2", "nearest-start+anderson-2", "ridge-start+anderson-2")
RUNS = {
    "lasso.paper": (256, 50),
    "lasso": (256, 50),
    "diabetes-lasso": (256, 50),
    "robust-kalman": (256, 60),
    "robust-kalman.metric": (256, 50),
    "robust-pca": (256, 60),
    "robust-pca.norms": (256, 60),
    "elastic-net": (256, 100),
    "pagerank": (256, 50),
    "value-iteration": (256, 100),
}
"""Held-out instances and evaluations per family, or FAMILY.SETTING."""
SEED = 0


def main() -> None:
    """Measure what the arguments name, or everything, then write the report from what was recorded."""
    wanted = [] if sys.argv[1:] == ["report"] else sys.argv[1:] or list(RUNS)
    if unknown := [name for name in wanted if name not in RUNS]:
        sys.exit(f"no runs for {', '.join(unknown)}; there are {', '.join(RUNS)}")
    for name in wanted:
        instances, steps = RUNS[name]
        family, _, setting = name.partition(".")
        found = compare.compare(
            family,
            [
                *(name for name in CLASSICAL if name != "momentum" or family != "lasso"),
                *TRIVIAL,
                *compare.trained_files(family, setting or None),
            ],
            instances=instances,
            steps=steps,
            seed=SEED,
            settings=compare.settings_file(family, setting=setting or None),
            setting=setting or None,
            shifts=list(getattr(families.load(family), "shifts", {})),
            report=partial(_say, name),
        )
        folder = store.RESULTS / name
        records.write(folder, found)
    report()


def report() -> None:
    """`RESULTS.md` and the pictures, from the records on disk and from what was tried in vain."""
    parts = [
        "# Classical and learned acceleration, measured",
        "Made by `make bench` from the records in `results/`; the weights are those of `make train`. The paper's "
        "experiments in its own setting are in [PAPER.md](PAPER.md), milliseconds of large batches in "
        "[ENGINE.md](ENGINE.md).",
    ]
    for name in RUNS:
        folder = store.RESULTS / name
        if not (folder / records.NAME).exists():
            continue
        found = records.read(folder)
        plot.convergence(found, folder / "convergence.png")
        versions = ", ".join(f"{package} {version}" for package, version in found[0]["versions"].items())
        parts += [f"## {name}", block(table.comparison(found))]
        parts += [f"![convergence](results/{name}/convergence.png)", f"Revision {found[0]['revision']}; {versions}."]
    for title, about, made in (
        ("Training instances and seeds", generalisation.__doc__, generalisation.report),
        ("Headline rows, five seeds", seeds.__doc__, seeds.report),
        ("One training, all sizes", sizes.__doc__, sizes.report),
    ):
        if (shown := made()) is not None:
            parts += [f"## {title}", (about or "").splitlines()[0], block(shown)]
    parts += ["## What did not work", FAILURES.read_text().strip()]
    files.write_text(PAGE, "\n\n".join(parts) + "\n")


def _say(name: str, row: compare.Row, index: int, count: int) -> None:
    shift = f", {row.shift}" if row.shift else ""
    print(f"{name}: {index + 1}/{count} {row.name} ({row.variant}{shift})", flush=True)


if __name__ == "__main__":
    main()
