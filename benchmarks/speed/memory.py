"""A hundred thousand instances in one call: peak memory against that of ten thousand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import fixedpoint as fp
from benchmarks import store
from benchmarks.speed import instances, measure
from benchmarks.speed.solver import peak, restart_peak
from maps.scs import kkt_error, solve

FAMILY, ROW = "robust-kalman", "picard"
COUNTS = (10_000, 100_000)
CHUNK = 1024
WORKERS = 2
"""For so many instances processes pay, with one thread each."""
TARGET = 1e-4
_CHECKED = 4096
"""Instances that the referee checks at a time."""


def run(path: Path, counts: Sequence[int] = COUNTS, chunk: int = CHUNK, say: Callable[[str], None] = print) -> None:
    """Solve each number of instances in one call that works on `chunk` at once, and append what it took."""
    row = json.loads((measure.HERE / "settings.json").read_text())[FAMILY][ROW]
    row["settings"] |= {"chunk": chunk, "workers": WORKERS}
    origin = measure.provenance({"settings": row, "target": TARGET})
    known = {store.key(record) for record in store.read(path) if record["run"] == origin["run"]}
    keywords = {**row["settings"], "eps_abs": TARGET, "eps_rel": TARGET}
    for count in counts:
        if (FAMILY, None, TARGET, "fixedpoint", ROW, count) in known:
            say(f"{count} instances: known")
            continue
        program = instances.draw(FAMILY, row["form"], count)
        accelerator = fp.accelerators.create(row["accelerator"], **row["options"])
        solve(instances.rows(program, 0, min(count, 16)), accelerator, **keywords)
        before = restart_peak()
        with fp.ProgressBar(f"{count} instances, {chunk} at a time") as bar:
            began = time.perf_counter()
            solution = solve(program, accelerator, callback=bar, **keywords)
            seconds = time.perf_counter() - began
        memory = {"before": before, "peak": peak()}
        parts = [torch.as_tensor(part) for part in (solution.x, solution.y, solution.s)]
        memory["answer"] = sum(part.numel() * part.element_size() for part in parts) / 2**20
        errors = [
            kkt_error(instances.rows(program, i, j), *(part[i:j] for part in parts))
            for i, j in ((i, min(i + _CHECKED, count)) for i in range(0, count, _CHECKED))
        ]
        record = {
            "part": "memory",
            **{"family": FAMILY, "form": row["form"], "solver": "fixedpoint", "variant": ROW, "peer": False},
            **{"instances": count, "chunk": chunk, "target": TARGET, "threads": torch.get_num_threads()},
            "ms_per_instance": {"median": 1e3 * seconds / count, "p90": None},
            "evaluations": measure.quantiles(torch.as_tensor(solution.evaluations).numpy()),
            **measure.verdict(torch.cat(errors), torch.as_tensor(solution.converged), TARGET),
            "memory_mib": memory,
            "settings": row,
        }
        store.append(path, [{**record, **origin}])
        say(f"{count} instances: {seconds:.1f} s, {memory['peak'] - memory['before']:.0f} MiB on top")
