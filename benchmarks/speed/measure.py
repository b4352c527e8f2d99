"""Interleaved timing: every round runs every row once, and ratios are taken within a round."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import store
from benchmarks.speed import instances
from benchmarks.speed.peers import Scs
from benchmarks.speed.solver import Job, Ours, Solver
from fixedpoint.experiments.evaluation import Record
from maps.scs import ConeProgram, kkt_error

FAMILIES = ("lasso", "robust-kalman", "robust-pca")
BATCHES = (1, 16, 128, 1024)
TARGETS = (1e-3, 1e-4, 1e-6)
ROUNDS = 5
LEAST = {1: 16, 16: 64}
"""Held-out instances at small batches, in several calls; at larger ones there is one call."""
OF_PEERS = {"lasso": 256, "robust-kalman": 256, "robust-pca": 64}
"""Most instances that outside solvers are timed on: the first ones of ours."""
ROUNDING = 1e-6
"""How far above the target, relatively, an error still meets it."""

HERE = Path(__file__).parent


def solvers(family: str) -> tuple[list[Solver], dict[str, Any]]:
    """(The rows of a family, ours first; the settings that they came from)."""
    ours = json.loads((HERE / "settings.json").read_text())[family]
    tuned = json.loads((HERE / "scs.json").read_text())[family]
    rows: list[Solver] = [Ours(variant, row) for variant, row in ours.items()]
    form = default_form(family)
    rows += [Scs("default", form, {}), Scs("default, oracle", form, {}, oracle=True)]
    for variant, oracle in (("tuned", False), ("tuned, oracle", True)):
        found = tuned["oracle" if oracle else "tuned"]
        rows.append(Scs(variant, found["form"], found["settings"], reuse=found["reuse"], oracle=oracle))
    return rows, {"ours": ours, "scs": tuned}


def default_form(family: str) -> str:
    """The form that the scs package gets by default."""
    return "conic" if family == "robust-pca" else "quadratic"


def run(
    path: Path,
    families: Sequence[str] = FAMILIES,
    batches: Sequence[int] = BATCHES,
    targets: Sequence[float] = TARGETS,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = print,
) -> None:
    """Measure what `path` does not have yet, and append it there, one family, batch and target after the other."""
    for family in families:
        rows, settings = solvers(family)
        origin = provenance({"settings": settings, "rounds": rounds, "of_peers": OF_PEERS[family], "least": LEAST})
        for batch in batches:
            for target in targets:
                known = {store.key(r) for r in store.read(path) if r["run"] == origin["run"]}
                wanted = {(family, batch, target, row.name, row.variant, counted(row, family, batch)) for row in rows}
                where = f"{family}, batch {batch}, to {store.text_of(target)}"
                if wanted <= known:
                    say(f"{where}: known")
                    continue
                found = cell(family, batch, target, rows, rounds)
                store.append(path, [{**record, **origin} for record in found])
                best = min((r for r in found), key=lambda r: r["ms_per_instance"]["median"])
                say(f"{where}: fastest {best['solver']} {best['variant']}, {best['ms_per_instance']['median']:.3f} ms")


def provenance(content: dict[str, Any]) -> Record:
    """As `store.provenance`, with what times depend on."""
    return store.provenance(content, seed=instances.SEED, torch_threads=torch.get_num_threads())


def counted(row: Solver, family: str, batch: int) -> int:
    """Instances that a row is timed on."""
    count = LEAST.get(batch, batch)
    return min(count, OF_PEERS[family]) if row.peer else count


def cell(family: str, batch: int, target: float, rows: Sequence[Solver], rounds: int) -> list[Record]:
    """The records of one family, batch and target."""
    jobs, programs, extra = [], [], []
    for row in rows:
        programs.append(instances.calls(family, row.form, batch, counted(row, family, batch)))
        jobs.append(row.prepare(programs[-1], target))
        extra.append(jobs[-1].profile())
    spent = np.zeros((rounds, len(rows)))
    errors: list[list[Tensor]] = [[] for _ in rows]
    for one in range(rounds):
        for i, job in enumerate(jobs):
            spent[one, i] = seconds(job) * 1e3 / counted(rows[i], family, batch)
            errors[i].append(referee(programs[i], job))
    records = []
    for i, row in enumerate(rows):
        answer = jobs[i].answer()
        against = {
            other.variant: float(np.median(spent[:, j] / spent[:, i])) for j, other in enumerate(rows) if other.peer
        }
        records.append(
            {
                "part": "speed",
                "family": family,
                "form": row.form,
                "solver": row.name,
                "variant": row.variant,
                "peer": row.peer,
                "batch": batch,
                "target": target,
                "instances": counted(row, family, batch),
                "rounds": rounds,
                "threads": jobs[i].threads,
                "ms_per_instance": quantiles(spent[:, i]),
                "times_faster_than_scs": against,
                "evaluations": quantiles(answer.evaluations.numpy()),
                **verdict(torch.cat(errors[i]), answer.claimed, target),
                "settings": row.settings,
                **extra[i],
            }
        )
    return records


def seconds(job: Job) -> float:
    """Of one run."""
    gc.collect()
    began = time.perf_counter()
    job.run()
    return time.perf_counter() - began


def referee(programs: Sequence[ConeProgram], job: Job) -> Tensor:
    """(B,) true KKT error of every instance that was returned."""
    answer, errors, start = job.answer(), [], 0
    for program in programs:
        stop = start + (program.batch or 1)
        errors.append(kkt_error(program, answer.x[start:stop], answer.y[start:stop], answer.s[start:stop]))
        start = stop
    return torch.cat(errors)


def verdict(errors: Tensor, claimed: Tensor, target: float) -> Record:
    """What the referee says, beside what the solver says."""
    return {
        "error": quantiles(errors.numpy()),
        "reached": float((errors <= target * (1 + ROUNDING)).double().mean()),
        "claimed": float(claimed.double().mean()),
    }


def quantiles(values: Any) -> dict[str, float | None]:
    """Median and 90th percentile, observed values; None where not finite."""
    found = {name: float(np.quantile(values, q, method="inverted_cdf")) for name, q in (("median", 0.5), ("p90", 0.9))}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
