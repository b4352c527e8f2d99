"""How many training instances it takes, and how much one seed differs from another.

    make bench-learning                                      (with `benchmarks.accelerators.sizes`)
    .venv/bin/python -m benchmarks.accelerators.generalisation  (from the repository root; two runs side by side)
    .venv/bin/python -m benchmarks.accelerators.generalisation report  (the table again, from the records)

Trains one accelerator on the robust Kalman filter, in its learned metric, on 32 to 8,000 instances with 5 seeds each,
and measures every one on the same held-out instances beside tuned Anderson acceleration. Training that was interrupted
goes on, what was measured is not measured again, and records of other code or settings are not shown. Writes
`benchmarks/results/generalisation/records.jsonl`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from rich.table import Table

import fixedpoint as fp
from benchmarks import store
from fixedpoint.experiments.comparison import compare
from fixedpoint.experiments.evaluation import TARGETS, Record, evaluations_to, generator, trace
from fixedpoint.experiments.report.style import plain
from fixedpoint.experiments.report.table import show

FAMILY, SETTING, ACCELERATOR = "robust-kalman", "metric", "warm-start+secants"
SIZES, SEEDS = (32, 128, 1000, 8000), (0, 1, 2, 3, 4)
PLAN: dict[str, Any] = {"updates": 300, "batch": 16, "horizon": 22, "learning_rate": 0.004, "validate_every": 100}
OPTIONS: dict[str, dict[str, Any]] = {
    "warm-start": {"width": 24, "context": False},
    "secants": {"pairs": 16, "steps": 10},
}
HELD_OUT, STEPS, SEED = 256, 50, 0
FILE = store.RESULTS / "generalisation" / "records.jsonl"
RUNS = compare.LOCAL_TRAINING / "generalisation"
JOBS = 2


def run_name() -> str:
    """Of all that may stand in one table."""
    found = compare.starting_point(FAMILY, SETTING, compare.settings_file(FAMILY, setting=SETTING))
    content = {"plan": PLAN, "options": OPTIONS, "from": found, "held out": HELD_OUT, "steps": STEPS}
    return store.run_name(content)


def family_options() -> dict[str, Any]:
    """Of the family with the learned metric, as Anderson acceleration was tuned on it."""
    settings = compare.settings_file(FAMILY, setting=SETTING)
    return compare.starting_point(FAMILY, SETTING, settings)[0]


def measured(accelerator: fp.Accelerator, family: fp.ProblemFamily | None = None, steps: int = STEPS) -> dict[str, Any]:
    """Evaluations to the targets on the held-out instances, as fields of a record."""
    family = family or fp.families.create(FAMILY, **family_options())
    problem = family.sample(HELD_OUT, generator=generator(SEED, "test"))
    errors = trace(family, accelerator, problem, steps)[0].numpy()
    grid, counts = np.arange(1, steps + 1), {}
    for target in TARGETS:
        found = np.quantile(evaluations_to(target, grid, errors), [0.5, 0.9], method="inverted_cdf")
        counts[store.text_of(target)] = [float(v) if np.isfinite(v) else None for v in found]
    return {"held_out": HELD_OUT, "evaluations_to": counts}


def one(run: str, instances: int, seed: int) -> None:
    """Train with one seed on so many instances, measure, append the record to those of the run."""
    folder = RUNS / f"{run}.{instances}.{seed}"
    plan = {**PLAN, "instances": instances, "seed": seed}
    trained = fp.train(FAMILY, ACCELERATOR, family_options=family_options(), options=OPTIONS, out=folder, **plan)
    minutes = (trained.provenance or {})["minutes"]
    identity = {"run": run, "accelerator": ACCELERATOR, "instances": instances, "seed": seed}
    store.append(FILE, [{**identity, "minutes": minutes, **measured(trained)}])


def report() -> Table | None:
    """The table of the last run; None before the first."""
    found = store.read(FILE)
    return table([record for record in found if record["run"] == found[-1]["run"]]) if found else None


def table(found: Sequence[Record]) -> Table:
    """Median and range over the seeds."""
    seeds = min((sum(r["instances"] == n for r in found) for n in {r["instances"] for r in found} - {None}), default=0)
    made = plain(
        f"{FAMILY}, learned metric: evaluations, median / 90th percentile of {HELD_OUT} held-out instances.\n"
        f"Trained: {ACCELERATOR} on so many instances; medians over {seeds} seeds, with their range."
    )
    for name in ("", "of", *(f"to {store.text_of(t)}" for t in TARGETS), "min"):
        made.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, instances in sorted({(r["accelerator"], r["instances"] or 0) for r in found}):
        rows = [r for r in found if (r["accelerator"], r["instances"] or 0) == (name, instances)]
        cells = [
            " / ".join(over_seeds([r["evaluations_to"][store.text_of(t)][k] for r in rows]) for k in (0, 1))
            for t in TARGETS
        ]
        minutes = f"{np.median([r['minutes'] for r in rows]):.1f}" if instances else ""
        made.add_row("trained" if instances else name, str(instances or ""), *cells, minutes)
    return made


def over_seeds(values: Sequence[float | None]) -> str:
    """The median, and the range where there is one; "-" where a seed did not get there."""
    known = sorted(np.inf if v is None else v for v in values)
    text = ["-" if np.isinf(v) else f"{v:g}" for v in (known[len(known) // 2], known[0], known[-1])]
    return text[0] if text[1] == text[2] else f"{text[0]} ({text[1]}-{text[2]})"


def main() -> None:
    """Do what is missing, then print the table."""
    if sys.argv[1:2] == ["one"]:
        one(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    if sys.argv[1:] not in ([], ["report"]):
        sys.exit(f"expected nothing or report, got {' '.join(sys.argv[1:])}")
    if not sys.argv[1:]:
        run = run_name()
        known = {(r["instances"], r["seed"]) for r in store.read(FILE) if r["run"] == run}
        if (None, None) not in known:
            settings = compare.settings_file(FAMILY, setting=SETTING)
            tuned = compare.configure(FAMILY, "anderson-2", settings, SETTING).accelerator
            identity = {"run": run, "accelerator": "anderson-2, tuned", "instances": None, "seed": None}
            store.append(FILE, [{**identity, "minutes": 0.0, **measured(tuned)}])
        jobs = [(n, seed) for seed in SEEDS for n in SIZES if (n, seed) not in known]
        with ThreadPoolExecutor(JOBS) as pool:
            done = list(pool.map(lambda job: _process(run, job), jobs))
        if failed := [job for job, good in zip(jobs, done, strict=True) if not good]:
            sys.exit(f"failed: {failed}")
    shown = report()
    if shown is not None:
        show(shown)


def _process(run: str, job: tuple[int, int]) -> bool:
    command = [sys.executable, "-m", "benchmarks.accelerators.generalisation", "one", run, *map(str, job)]
    done = subprocess.run(
        command, cwd=store.ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    print(f"{job[0]} instances, seed {job[1]}: {'done' if done.returncode == 0 else done.stderr}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
