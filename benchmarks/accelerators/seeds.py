"""The headline rows of the Lasso and of robust PCA with five seeds: how much of a figure is luck.

    make bench-learning                               (with the others of its kind)
    .venv/bin/python -m benchmarks.accelerators.seeds  (from the repository root; two runs side by side)

Trains by the recipes of `train.py`, with fewer updates, on instances of another seed each time, and measures every one
on the same held-out instances. Training that was interrupted goes on, what was measured is not measured again, and
records of other code or recipes are not shown. Writes `benchmarks/results/seeds/records.jsonl`. The Kalman filter's
seeds are in `generalisation.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from rich.table import Table

import fixedpoint as fp
from benchmarks import store
from benchmarks.accelerators.generalisation import HELD_OUT, JOBS, measured, over_seeds
from fixedpoint.experiments.comparison import compare
from fixedpoint.experiments.evaluation import TARGETS
from fixedpoint.experiments.report.style import plain
from fixedpoint.experiments.report.table import show
from fixedpoint.learning.training import TRAINED
from tools.train import RECIPES

SUBJECTS = {("lasso", "coordinate-gru"): 500, ("robust-pca.norms", "site-gru"): 300}
"""(family or FAMILY.SETTING, accelerator): updates."""
SEEDS, STEPS = (0, 1, 2, 3, 4), 60
FILE = store.RESULTS / "seeds" / "records.jsonl"
RUNS = compare.LOCAL_TRAINING / "seeds"

Subject = tuple[str, str]


def run_name(subject: Subject) -> str:
    """Of all that may stand in one row."""
    where, accelerator = subject
    return store.run_name({"recipe": RECIPES[where][accelerator], "updates": SUBJECTS[subject], "held out": HELD_OUT})


def one(subject: Subject, seed: int) -> None:
    """Train with one seed, measure, and append the record.

    Raises:
        RuntimeError: the training failed; the message is its own.
    """
    (where, accelerator), run = subject, run_name(subject)
    family, _, setting = where.partition(".")
    folder = RUNS / f"{run}.{seed}"
    options = [*(["--setting", setting] if setting else []), *RECIPES[where][accelerator].split()]
    options += ["--updates", str(SUBJECTS[subject]), "--seed", str(seed), "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "fixedpoint", "train", family, accelerator, *options],
        cwd=store.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{where} {accelerator}, seed {seed}: {done.stderr.strip()}")
    trained = fp.load(store.ROOT / folder / TRAINED)
    provenance: Any = trained.provenance
    drawn = fp.families.create(family, **provenance["family"]["options"])
    identity = {"run": run, "family": where, "accelerator": accelerator, "seed": seed}
    store.append(FILE, [{**identity, "minutes": provenance["minutes"], **measured(trained, drawn, STEPS)}])


def report() -> Table | None:
    """A row for each subject, of its last run; None before the first."""
    found = store.read(FILE)
    if not found:
        return None
    made = plain(
        f"evaluations, median / 90th percentile of {HELD_OUT} held-out instances\n"
        f"Trained with {len(SEEDS)} seeds, for so many updates; medians over the seeds, with their range."
    )
    for name in ("", "updates", *(f"to {store.text_of(t)}" for t in TARGETS), "min"):
        made.add_column(name, justify="right" if name else "left", no_wrap=True)
    for subject, updates in SUBJECTS.items():
        mine = [r for r in found if (r["family"], r["accelerator"]) == subject]
        rows = [r for r in mine if r["run"] == mine[-1]["run"]]
        if not rows:
            continue
        cells = [
            " / ".join(over_seeds([r["evaluations_to"][store.text_of(t)][k] for r in rows]) for k in (0, 1))
            for t in TARGETS
        ]
        minutes = f"{np.median([r['minutes'] for r in rows]):.1f}"
        made.add_row(subject[1], str(updates), *cells, minutes)
    return made


def main() -> None:
    """Do what is missing, then print the table."""
    if sys.argv[1:] not in ([], ["report"]):
        sys.exit(f"expected nothing or report, got {' '.join(sys.argv[1:])}")
    if not sys.argv[1:]:
        known = {(r["run"], r["seed"]) for r in store.read(FILE)}
        jobs = [(subject, seed) for seed in SEEDS for subject in SUBJECTS if (run_name(subject), seed) not in known]
        with ThreadPoolExecutor(JOBS) as pool:
            for (subject, seed), _ in zip(jobs, pool.map(lambda job: one(*job), jobs), strict=True):
                print(f"{' '.join(subject)}, seed {seed}: done", flush=True)
    shown = report()
    if shown is not None:
        show(shown)


if __name__ == "__main__":
    main()
