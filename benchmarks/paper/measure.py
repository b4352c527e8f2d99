"""Measure every row of a problem on the same held-out instances; what a run already has is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.paper import anderson, quantities, rows, store
from benchmarks.paper.problems import INSTANCES, SEED, PaperProblem
from benchmarks.paper.rows import Row
from fixedpoint import unroll
from fixedpoint.experiments.evaluation import Record, generator
from fixedpoint.plugins import checkpoint
from fixedpoint.protocol import ProblemFamily
from fixedpoint.tensors import pytrees

DRAWN = (0, 1)
"""Held-out instances whose iterates are drawn."""
ENTRIES = 8
"""Of each part of the output."""


def run(
    problem: PaperProblem,
    weights: Mapping[str, Path],
    folder: Path,
    instances: int = INSTANCES,
    say: Callable[[str], None] = print,
) -> None:
    """Measure what the folder's records do not have yet, and append it there, row by row.

    Args:
        problem: which.
        weights: file of each training that a row needs.
        folder: of the records.
        instances: held-out instances (split "test").
        say: told after every row.
    """
    path = folder / store.NAME
    planned = rows.planned(problem)
    content = {
        "problem": problem.name,
        "family": problem.options(),
        "instances": instances,
        "seed": SEED,
        "weights": {row.name: _digest(row, weights) for row in planned},
    }
    origin = {"problem": problem.name, **store.provenance(content)}
    drawn = [row for row in planned if row.kind != "ablation"]
    keys = [f"choice: {name}" for name in rows.ANDERSON]
    keys += [f"row: {row.name}" for row in planned] + ["solution: "] + [f"iterates: {row.name}" for row in drawn]
    there = store.read(path)
    if not any(r["part"] == "plan" and (r["run"], r["keys"]) == (origin["run"], keys) for r in there):
        store.append(path, [{"part": "plan", "row": "", "keys": keys, **origin}])
    found = store.known(there, origin["run"])

    def keep(record: Record) -> Record:
        record = {**record, **origin}
        store.append(path, [record])
        found[store.key(record)] = record
        say(f"{problem.name}: {store.key(record)}")
        return record

    for name, accelerator in rows.ANDERSON.items():
        if f"choice: {name}" not in found:
            keep({"part": "choice", "row": name, **anderson.choose(problem, accelerator)})
    missing = [name for name in keys if name not in found]
    if not missing:
        say(f"{problem.name}: all rows known")
        return
    family = problem.bound()
    held_out = family.sample(instances, generator=generator(SEED, "test"))
    few = pytrees.take_rows(held_out, family.map.ranks, torch.tensor(DRAWN))
    if "solution: " in missing:
        keep({"part": "solution", "row": "", **_solution(family, few)})
    for row in planned:
        options = found[f"choice: {row.name}"]["options"] if row.name in rows.ANDERSON else {}
        method = rows.make(row, options, weights.get(row.accelerator))
        if f"row: {row.name}" in missing:
            values = quantities.quantities(family, method, held_out, problem.steps)
            keep({"part": "row", "row": row.name, "kind": row.kind, **_record(row, options, values, weights)})
        if f"iterates: {row.name}" in missing:
            entries = found["solution: "]["entries"]
            lines = quantities.iterates(family, method, few, problem.steps, entries)
            keep({"part": "iterates", "row": row.name, "kind": row.kind, "lines": lines})


def _digest(row: Row, weights: Mapping[str, Path]) -> str | None:
    return checkpoint.digest(checkpoint.load(weights[row.accelerator])) if rows.trained(row) else None


def _record(row: Row, options: dict[str, Any], values: quantities.Quantities, weights: Mapping[str, Path]) -> Record:
    lost = ~np.isfinite(values["residual"][-1])
    told = checkpoint.provenance(weights[row.accelerator]) if rows.trained(row) else None
    return {
        "weights": _digest(row, weights),
        "instances": int(values["residual"].shape[1]),
        "seed": SEED,
        "steps": int(values["residual"].shape[0]),
        "curves": {name: quantities.curve(part) for name, part in values.items()},
        "lost": int(lost.sum()),
        "settings": options,
        "training": None if told is None else told_of(told),
    }


def told_of(provenance: Mapping[str, Any]) -> Record:
    """What a record says of a training: minutes in all, and the plan of each stage, the first one first."""
    stages: list[Mapping[str, Any]] = []
    now: Mapping[str, Any] | None = provenance
    while now:
        stages.insert(0, now)
        now = now.get("before")
    return {
        "minutes": provenance["minutes"],
        "stages": [
            {name: stage["plan"][name] for name in ("loss", "weights", "horizon", "updates", "batch", "instances")}
            for stage in stages
        ],
    }


def _solution(family: ProblemFamily, few: Any) -> Record:
    """The solutions of the drawn instances, and which of their entries are drawn: from large to small."""
    with torch.no_grad():
        x = family.solutions(few)
        assert x is not None
        end = unroll(family.map, few, None, 1, start=x).output
    entries, values = [], []
    for i in range(len(DRAWN)):
        parts = [part[-1, i] for part in quantities.parts_of(end)]
        chosen = [_spread(part.abs().numpy()) for part in parts]
        entries.append(chosen)
        values.append([[float(part[k]) for k in mine] for part, mine in zip(parts, chosen, strict=True)])
    return {"entries": entries, "values": values}


def _spread(sizes: np.ndarray) -> list[int]:
    """Indices of entries from near the largest (few would flatten the others) to the median of those that are not 0.

    Args:
        sizes: absolute values.
    """
    order = np.argsort(-sizes, kind="stable")
    nonzero = int((sizes > 1e-6 * sizes.max()).sum())
    last = min(max(ENTRIES, nonzero // 2), len(sizes)) - 1
    ranks = np.unique(np.linspace(min(nonzero // 20, last - ENTRIES + 1), last, ENTRIES).round().astype(int))
    return [int(order[rank]) for rank in ranks]
