"""Where the time of an evaluation goes, and how low it could be on this machine.

    .venv/bin/python -m benchmarks.speed.floor                     (on an idle machine, from the repository root)
    .venv/bin/python -m benchmarks.speed.floor --batch 64 lasso    (some families, a smaller batch)

For each family, in our settings of `benchmarks/speed/settings.json`: microseconds per instance and evaluation by
piece, beside two floors made from rates that are measured here, with all cores:

- of our layout: what torch dispatches in a piece takes the larger of its arithmetic at the rate of a matrix product
  and its bytes at the rate of a copy within L3, plus the overhead of every operation; what torch does not dispatch
  (SciPy's factorization, native code) is not in it.
- of a native fused loop that solves one instance per core: arithmetic and memory traffic of a sparse LDL' factor, the
  vectors, the residuals and the acceleration, all within L2, nothing else: the larger of the bytes at the rate at which
  a core reads L2 and the arithmetic at two operations per number read. The factor of an instance's own is read twice
  per evaluation, one that is shared costs no traffic. Its setup is the arithmetic of the factorization at the rate of a
  matrix product.

Writes `benchmarks/results/floor/records.jsonl`; `python -m benchmarks.speed report` puts the tables into ENGINE.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table

import fixedpoint as fp
from benchmarks import machine, store
from benchmarks.speed import instances, measure
from benchmarks.speed.pieces import LOOP, SETUP, Pieces
from benchmarks.tables import block, origin
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.style import plain
from fixedpoint.experiments.report.table import show
from fixedpoint.tensors import pytrees
from maps.scs import ConeProgram, solve
from maps.scs.problem.sparse_matrix import entries

RECORDS = store.RESULTS / "floor" / "records.jsonl"
BATCH, EVALUATIONS = 1024, 20
ROWS = {"lasso": ("picard",), "robust-pca": ("picard", "safeguarded"), "robust-kalman": ("picard", "anderson-2")}
_GEMM, _VECTORS = "128 x 200 x 200", 8
"""Which measured product sets the rate; how often a fused loop reads or writes each vector of an evaluation."""
_STORED = 12
"""Bytes of a stored entry: a number and its index."""


class Work(NamedTuple):
    """What a native loop has to do."""

    flops: float
    """Per instance and evaluation; so are bytes."""
    bytes: float
    setup_flops: float
    """Per instance (a shared factorization counts once per batch)."""
    factor: int
    """Stored entries of the factor."""


def native(program: ConeProgram, row: Mapping[str, Any]) -> Work:
    """Arithmetic and traffic of a fused loop: linear system, projection, tau, metric, residuals, acceleration.

    Args:
        program: a batch.
        row: our settings; of the accelerator's only the memory counts.
    """
    factor, setup = _factor(program)
    stored = sum(len(pattern) for pattern in program.patterns.values())
    size, memory = program.n + program.m + 1, row.get("options", {}).get("memory", 0)
    shared = entries(program.A, program.patterns["A"]).ndim == 1
    flops = 4.0 * factor + 2 * size  # two triangular solves
    flops += sum(_projection(key, value) for key, value in program.cones.items())
    flops += 6 * size + 10 * size  # tau's inner products; metric, reflection, relaxation, length
    flops += 2.0 * 2 * stored + 10 * size  # the residuals: A x, A' y, P x and their sizes
    flops += (2 + 4 + 4) * memory * size  # a row of the Gram matrix, the step, its refinement
    traffic = 8.0 * size * (_VECTORS + 5 * memory) + (0 if shared else 2 * _STORED * (factor + stored))
    return Work(flops, traffic, setup / (program.batch or 1) if shared else setup, factor)


def _factor(program: ConeProgram) -> tuple[int, float]:
    """(entries of a sparse LDL' factor of the quasi-definite system, flops to make it)."""
    from scipy import sparse
    from scipy.sparse import linalg

    def matrix(name: str) -> Any:
        pattern = program.patterns[name]
        values = entries(getattr(program, name), pattern)
        first = (values if values.ndim == 1 else values[0]).double().numpy()
        return sparse.csc_matrix((first, (pattern.rows, pattern.columns)), shape=pattern.shape)

    A = matrix("A")
    P = sparse.csc_matrix((program.n, program.n)) if program.P is None else matrix("P")
    K = sparse.block_array([[P + sparse.eye_array(program.n), A.T], [A, -sparse.eye_array(program.m)]], format="csc")
    options = {"SymmetricMode": True}
    lower = linalg.splu(K, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).L
    below = np.diff(lower.tocsc().indptr) - 1
    return int(lower.nnz), float((below.astype(float) ** 2).sum())


def _projection(key: str, value: Any) -> float:
    """Flops to project onto one kind of cone."""
    if key in ("z", "l"):
        return float(value)
    if key == "q":
        return float(sum(4 * length for length in value))
    if key == "nuclear-norm":  # the Gram matrix, its eigenvalues (about 10 k^3) and the product with what they make
        return float(sum(4 * rows * columns**2 + 10 * columns**3 for rows, columns in value))
    raise ValueError(f"cone {key}: nobody has counted its projection")


def measured(
    program: ConeProgram, row: Mapping[str, Any], rates: Mapping[str, Any], core: Mapping[str, Any], evaluations: int
) -> Record:
    """Pieces, layout floor and native floor of one row: microseconds per instance and evaluation (setup: per instance).

    Args:
        program: a batch.
        row: our settings.
        rates: of the machine, with all threads; `core` with one.
        evaluations: made by every instance.
    """
    accelerator = fp.accelerators.create(row["accelerator"], **row.get("options", {}))
    keywords = {**row["settings"], "eps_abs": 0.0, "eps_rel": 0.0, "max_evaluations": evaluations}
    keywords.pop("workers", None)  # only the calling thread is watched
    if keywords.pop("precision", "full") == "mixed":  # its first part, which does nearly all evaluations
        program = pytrees.transform(lambda t: t.to(torch.float32) if t.is_floating_point() else t, program)
    batch = program.batch or 1
    solve(program, accelerator, **keywords)
    began = time.perf_counter()
    solve(program, accelerator, **keywords)
    alone = time.perf_counter() - began
    found = []
    for count in (False, True):
        with Pieces(count=count) as pieces:
            solve(program, accelerator, **keywords)
        found.append(pieces)
    seconds, counts = found[0].seconds, found[1].counts
    gemm, copy = rates["gflops"]["float64"][_GEMM] * 1e9, rates["gbs"]["L3"]["copy"] * 1e9
    table, layout = {}, 0.0
    for piece in sorted(seconds, key=lambda name: -seconds[name]):
        per = batch * (1 if piece == SETUP else evaluations)
        flops, moved, operations = (counts[piece][name] for name in ("flops", "bytes", "operations"))
        least = max(flops / gemm, moved / copy) + operations * rates["us_per_operation"] * 1e-6
        each = {"flops": flops, "bytes": moved, "operations": operations}
        table[piece] = {
            "us": 1e6 * seconds[piece] / per,
            "floor_us": 1e6 * least / per,
            **{f"{name}_per_instance": value / per for name, value in each.items()},
        }
        layout += 0.0 if piece == SETUP else 1e6 * least / per
    work = native(program, row)
    stream = core["gbs"]["L2"]["read"] * rates["threads"]  # GB/s, and so many times two operations on eight bytes
    us = max(work.flops / (stream * 2 / 8), work.bytes / stream) / 1e3
    setup = table.get(SETUP, {"us": 0.0})["us"]
    return {
        "pieces": table,
        "us": {"measured": sum(piece["us"] for piece in table.values()) - setup, "layout": layout, "native": us},
        "setup_us": {"measured": setup, "native": 1e6 * work.setup_flops / gemm},
        "ms": {"watched": 1e3 * sum(seconds.values()), "alone": 1e3 * alone},
        "work": work._asdict(),
    }


def run(families: Sequence[str], batch: int, evaluations: int, path: Path = RECORDS) -> None:
    """Measure the machine, then every row; append the records and print their tables."""
    rates = machine.measured()
    settings = json.loads((measure.HERE / "settings.json").read_text())
    one, everything = rates["1"], rates[max(rates, key=int)]
    chosen = {f: {name: settings[f][name] for name in ROWS[f]} for f in ROWS}  # the same run, whatever was asked for
    content = {"settings": chosen, "batch": batch, "evaluations": evaluations}
    origin = measure.provenance(content)
    show(machine_table(rates))
    store.append(path, [{"part": "machine", "family": None, "rates": rates, **origin}])
    for family in families:
        for name, row in chosen[family].items():
            program = instances.program(family, row["form"], batch)
            found = measured(program, row, everything, one, evaluations)
            identity = {"part": "floor", "family": family, "form": row["form"], "solver": "fixedpoint", "variant": name}
            record = {**identity, "batch": batch, "evaluations": evaluations, **found, "settings": row, **origin}
            store.append(path, [record])
            show(table([record]))


def section(path: Path = RECORDS) -> list[str]:
    """The part of ENGINE.md that the records of the last run make; nothing without any."""
    records = store.read(path)
    last = [record for record in records if record["run"] == records[-1]["run"]]
    rates = [record for record in last if record["part"] == "machine"]
    rows = {store.key(record): record for record in last if record["part"] == "floor"}
    if not rates or not rows:
        return []
    text = __doc__.split("\n\n", 2)[2].rsplit("\n\n", 1)[0]
    families = [record["family"] for record in rows.values()]
    parts = ["## Floors", text, block(machine_table(rates[-1]["rates"]))]
    for family in dict.fromkeys(families):
        mine = [record for record in rows.values() if record["family"] == family]
        parts += [f"### {family}", *(block(table([record])) for record in mine)]
    return [*parts, origin(list(rows.values()))]


def machine_table(rates: Mapping[str, Any]) -> Table:
    """What was measured of the machine, a column per number of threads."""
    found = plain("this machine")
    found.add_column("", no_wrap=True)
    for threads in rates:
        found.add_column(f"{threads} thread{'s' if int(threads) > 1 else ''}", justify="right")
    some = next(iter(rates.values()))
    for dtype, products in some["gflops"].items():
        for name in products:
            cells = (f"{each['gflops'][dtype][name]:.1f}" for each in rates.values())
            found.add_row(f"{dtype}: {name}, GFLOP/s", *cells)
    for place, kinds in some["gbs"].items():
        for kind in kinds:
            found.add_row(f"{kind} in {place}, GB/s", *(f"{each['gbs'][place][kind]:.0f}" for each in rates.values()))
    found.add_row("an eager operation, us", *(f"{each['us_per_operation']:.2f}" for each in rates.values()))
    return found


def table(records: Sequence[Record]) -> Table:
    """Pieces of one or more rows of a family, and the two floors below."""
    first = records[0]
    found = plain(f"{first['family']}, {first['variant']}: batch {first['batch']}, {first['evaluations']} evaluations")
    found.add_column("us per instance\nand evaluation", no_wrap=True)
    for head in ("\nmeasured", "\nshare", "floor of\nour layout", "\nkflop", "\nkB", "operations\nper evaluation"):
        found.add_column(head, justify="right", no_wrap=True)
    for record in records:
        total = record["us"]["measured"]
        for piece, cost in record["pieces"].items():
            if piece == SETUP:
                continue
            calls = cost["operations_per_instance"] * record["batch"]
            share = f"{100 * cost['us'] / total:.0f}%"
            numbers = (cost["flops_per_instance"] / 1e3, cost["bytes_per_instance"] / 1e3)
            label = "loop and the rest" if piece == LOOP else piece
            cells = (f"{cost['us']:.2f}", share, f"{cost['floor_us']:.2f}", *(f"{v:.1f}" for v in numbers))
            found.add_row(label, *cells, f"{calls:.0f}")
        found.add_section()
        work, us = record["work"], record["us"]
        found.add_row("all", f"{total:.2f}", "100%", f"{us['layout']:.2f}", "", "", "")
        fused = (f"{us['native']:.2f}", "", "", f"{work['flops'] / 1e3:.1f}", f"{work['bytes'] / 1e3:.1f}", "")
        found.add_row("native fused loop, floor", *fused)
        found.add_row("measured / floor", f"{total / us['native']:.1f}", "", f"{total / us['layout']:.1f}", "", "", "")
        setup = record["setup_us"]
        found.caption = f"setup: {setup['measured']:.1f} us per instance; native, floor: {setup['native']:.2f}"
        found.caption += "; the whole solve: {watched:.1f} ms watched, {alone:.1f} ms alone".format(**record["ms"])
        found.caption_justify = "left"
    return found


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.floor", description=__doc__.split("\n\n")[0])
    parser.add_argument("families", nargs="*", default=list(ROWS), help="default: all")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--records", type=Path, default=RECORDS)
    asked = parser.parse_args()
    if unknown := sorted(set(asked.families) - set(ROWS)):
        parser.error(f"no such family: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    run(asked.families, asked.batch, asked.evaluations, asked.records)


if __name__ == "__main__":
    main()
