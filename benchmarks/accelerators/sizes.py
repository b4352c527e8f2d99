"""One training, all sizes: a size-free accelerator on Lassos from half to four times the size that it was trained on.

    make bench-learning                             (with `benchmarks.accelerators.generalisation`)
    .venv/bin/python -m benchmarks.accelerators.sizes  (from the repository root; a few minutes)
    .venv/bin/python -m benchmarks.accelerators.sizes report  (the table again, from the records)

Beside it tuned Anderson acceleration and the plain iteration in the same settings of the map, those of the training,
with samples = 2 x variables throughout. Writes `benchmarks/results/sizes/records.jsonl`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from rich.table import Table

import fixedpoint as fp
from benchmarks import store
from fixedpoint.experiments import tuning
from fixedpoint.experiments.comparison import compare
from fixedpoint.experiments.evaluation import TARGETS, Record, generator, measure, record
from fixedpoint.experiments.report import records
from fixedpoint.experiments.report.style import plain
from fixedpoint.experiments.report.table import show

FAMILY, TRAINED = "lasso", "coordinate-gru-any-size"
VARIABLES = (25, 50, 100, 200)
INSTANCES, STEPS, SEED = 64, 50, 0
FOLDER = store.RESULTS / "sizes"


def measured(variables: Sequence[int], instances: int, steps: int) -> Iterator[Record]:
    """The rows of every size: plain, tuned, trained.

    Args:
        variables: sizes; samples are twice as many.
        instances: held-out instances of each.
        steps: evaluations.
    """
    trained = fp.load(compare.trained_files(FAMILY)[TRAINED])
    told = trained.provenance or {}
    settings = compare.settings_file(FAMILY)
    assert settings is not None, "the tuned settings are shipped"
    anderson = tuning.load(settings, FAMILY)["accelerators"]["anderson-2"]["accelerator"]
    training = {name: told[name] for name in ("minutes", "updates")}
    training |= {name: told["plan"][name] for name in ("instances", "seed")}
    for size in variables:
        options = {**told["family"]["options"], "variables": size, "samples": 2 * size}
        family = fp.families.create(FAMILY, **options)
        problem = family.sample(instances, generator=generator(SEED, "test"))
        for name, variant, accelerator in (
            ("picard", "default", fp.accelerators.create("picard")),
            ("anderson-2", "tuned", fp.accelerators.create("anderson-2", **anderson)),
            (TRAINED, "trained", trained),
        ):
            errors, spent = measure(family, accelerator, problem, steps=steps, repeats=1)
            identity: Record = {"family": FAMILY, "form": family.form, "accelerator": name, "variant": variant}
            identity |= {"peer": False, "seed": SEED, "steps": steps, "error": family.error_kind, "setting": None}
            identity |= {"shift": None, "training": training if variant == "trained" else None, "variables": size}
            yield record(identity, np.arange(1, steps + 1), errors, spent, {"family": options})


def table(found: Sequence[Record]) -> Table:
    """Evaluations to the targets, size by size."""
    made = plain(f"{FAMILY}: evaluations, median / 90th percentile of {found[0]['instances']} instances")
    made.add_column("variables", justify="right")
    made.add_column("accelerator")
    for target in TARGETS:
        made.add_column(f"to {target:.0e}".replace("e-0", "e-"), justify="right")
    last = None
    for row in found:
        counts = [
            " / ".join("-" if part is None else f"{part:g}" for part in (entry["median"], entry["p90"]))
            for entry in row["evaluations_to"].values()
        ]
        size = "" if row["variables"] == last else str(row["variables"])
        last = row["variables"]
        name = row["accelerator"] + (", tuned" if row["variant"] == "tuned" else "")
        made.add_row(size, name, *counts)
    return made


def report() -> Table | None:
    """The table of the records; None before there are any."""
    return table(records.read(FOLDER)) if (FOLDER / records.NAME).exists() else None


def main() -> None:
    """Measure, unless only the report is asked for, and print the table."""
    if sys.argv[1:] not in ([], ["report"]):
        sys.exit(f"expected nothing or report, got {' '.join(sys.argv[1:])}")
    if not sys.argv[1:]:
        records.write(FOLDER, list(measured(VARIABLES, INSTANCES, STEPS)))
    shown = report()
    if shown is not None:
        show(shown)


if __name__ == "__main__":
    main()
