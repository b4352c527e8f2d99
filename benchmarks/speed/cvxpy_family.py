"""`CvxpyFamily` beside cvxpylayers, and its canonicalisation beside CVXPY's own.

    pip install --no-deps cvxpylayers==1.2.0     # besides the extra `dev`
    python -m benchmarks.speed.cvxpy_family             # on two cores; --profile says where our time goes

Writes benchmarks/results/cvxpy-family/records.jsonl, one line per measurement, and prints a table. Repeats of the
rivals take turns; every time is a median of wall-clock times. Our static settings are chosen on other instances, by
`python -m benchmarks.speed tune --ours layer`.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import cvxpy as cp
import diffcp
import numpy as np
import torch
import typer
from cvxpylayers.torch import CvxpyLayer
from torch import Tensor

from benchmarks import store
from benchmarks.speed.layer import SIZE, draw, nonnegative_lasso
from benchmarks.speed.tuning import own
from fixedpoint.experiments.evaluation import revision, versions
from fixedpoint.plugins.composition import describe
from maps.scs import ConeProgram, kkt_error
from maps.scs.cvxpy import CvxpyFamily

OUT = store.RESULTS / "cvxpy-family" / "records.jsonl"
PACKAGES = ("fixedpoint-acceleration", "torch", "numpy", "scs", "clarabel", "cvxpy", "diffcp", "cvxpylayers")
KKT = 1e-6
"""What both sides must reach, in the original data."""
GRADIENTS = 1e-4
"""How far gradients may be from those of a solve to 1e-11, relative to the largest entry."""
PRECISE: dict[str, Any] = {"eps_abs": KKT, "eps_rel": KKT}
STATIC = json.loads(own.PATH.read_text())[own.LAYER]["picard"]
OURS: dict[str, dict[str, Any]] = {
    "ours, its defaults": {"accelerator": "safeguarded", **PRECISE},
    "ours, static": {"accelerator": STATIC["accelerator"], **STATIC["settings"], **PRECISE},
}
THEIRS: dict[str, dict[str, Any]] = {
    "cvxpylayers, its defaults": {},
    "cvxpylayers, Clarabel, dense": {"solve_method": "Clarabel", "mode": "dense"},
    "cvxpylayers, SCS, dense": {"solve_method": "SCS", "eps": 1e-8, "mode": "dense"},
}
"""Its default derivative, by LSQR, is some 10% off here; the dense one is right, and faster."""


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """What diffcp is given and returns: (arguments, results) of each batch that is solved meanwhile."""
    original, seen = diffcp.solve_and_derivative_batch, []

    def spy(*arguments: Any, **options: Any) -> Any:
        results = original(*arguments, **options)
        seen.append((arguments, results))
        return results

    diffcp.solve_and_derivative_batch = spy
    try:
        yield seen
    finally:
        diffcp.solve_and_derivative_batch = original


def their_error(arguments: Any, results: Any) -> float:
    """The largest KKT error of a batch that diffcp solved."""
    A, b, c, cones = arguments[:4]
    matrices, rights, objectives = (torch.as_tensor(np.stack(part)) for part in ([one.toarray() for one in A], b, c))
    known = {{"f": "z"}.get(key, key): value for key, value in cones[0].items() if value}
    program = ConeProgram(matrices, rights, objectives, cones=known)
    return float(kkt_error(program, *(np.stack(part) for part in results[:3])).max())


def one_pass(forward: Callable[[list[Tensor]], Tensor], values: list[Tensor]) -> tuple[dict[str, float], list[Tensor]]:
    """(seconds of the forward and the backward half, gradients)."""
    live = [value.clone().requires_grad_() for value in values]
    began = time.perf_counter()
    x = forward(live)
    half = time.perf_counter()
    weights = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype)
    (x * weights).sum().backward()
    ended = time.perf_counter()
    gradients = [leaf.grad for leaf in live if leaf.grad is not None]
    return {"forward": half - began, "backward": ended - half, "both": ended - began}, gradients


def distance(one: list[Tensor], two: list[Tensor]) -> float:
    """The largest difference of two gradients, relative to the largest entry of each leaf."""
    return max(float((g - h).abs().max() / h.abs().max()) for g, h in zip(one, two, strict=True))


def layers(batch: int, repeats: int, profile: bool) -> list[dict[str, Any]]:
    """Forward and backward passes of a batch, ours and theirs in turns."""
    problem, parameters, x = nonnegative_lasso(*SIZE)
    family, layer, values = CvxpyFamily(problem, parameters), CvxpyLayer(problem, parameters, [x]), draw(batch, *SIZE)

    def mine(options: dict[str, Any]) -> Callable[[list[Tensor]], Tensor]:
        return lambda live: family.solve(live, gradient="implicit", **options).variables[0]

    def theirs(options: dict[str, Any]) -> Callable[[list[Tensor]], Tensor]:
        return lambda live: layer(*live, solver_args=options)[0]

    sides = {name: mine(options) for name, options in OURS.items()}
    sides |= {name: theirs(options) for name, options in THEIRS.items()}
    errors = {}
    for name, options in OURS.items():
        solution = family.solve(values, **options).solution
        errors[name] = float(kkt_error(family.program(values), solution.x, solution.y, solution.s).max())
    for name in THEIRS:
        with recorded() as seen:
            sides[name]([value.clone().requires_grad_() for value in values])
        errors[name] = their_error(*seen[0])
    exact = one_pass(mine({"eps_abs": 1e-11, "eps_rel": 1e-11}), values)[1]
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    gradients: dict[str, list[Tensor]] = {}
    for turn in range(repeats + 1):
        for name, forward in sides.items():
            seconds, gradients[name] = one_pass(forward, values)
            if turn:  # the first warms up
                spent[name].append(seconds)
    if profile:
        with cProfile.Profile() as profiler:
            one_pass(sides["ours, static"], values)
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)
    rows: list[dict[str, Any]] = []
    for name, times in spent.items():
        ms = {part: 1e3 * float(np.median([t[part] for t in times])) / batch for part in times[0]}
        row: dict[str, Any] = {
            "measure": "layer",
            "side": name,
            "batch": batch,
            "ms_per_instance": ms,
            "kkt_error": errors[name],
        }
        row |= {"gradient_error": distance(gradients[name], exact), "repeats": repeats}
        row |= {"settings": OURS.get(name) or THEIRS[name]}
        rows.append(row)
    for row in rows:
        row["fair"] = row["kkt_error"] <= 1.01 * KKT and row["gradient_error"] <= GRADIENTS
        row["ratio"] = row["ms_per_instance"]["both"] / rows[1]["ms_per_instance"]["both"]
    return rows


def canonicalisation(instances: int, repeats: int) -> list[dict[str, Any]]:
    """Lassos of 100 x 50 from parameter values to program data: the batch product, and CVXPY one by one (compiled)."""
    X, Y, weight = (
        cp.Parameter((100, 50), name="X"),
        cp.Parameter(100, name="Y"),
        cp.Parameter(nonneg=True, name="weight"),
    )
    beta = cp.Variable(50)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X @ beta - Y) + weight * cp.norm1(beta)))
    family, values = CvxpyFamily(problem, [X, Y, weight]), draw(instances, 50, 100)
    arrays = [value.numpy() for value in values]

    def loop() -> None:
        for i in range(instances):
            for parameter, value in zip((X, Y, weight), arrays, strict=True):
                parameter.value = value[i]
            problem.get_problem_data("SCS", solver_opts={"use_quad_obj": True})

    sides: dict[str, Callable[[], Any]] = {"ours": lambda: family.program(values), "get_problem_data": loop}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            for _ in range(3 if name == "ours" else 1):
                began = time.perf_counter()
                run()
                if turn:
                    spent[name].append(time.perf_counter() - began)
    ms = {name: 1e3 * float(np.median(seconds)) for name, seconds in spent.items()}
    rows: list[dict[str, Any]] = [
        {"measure": "canonicalisation", "side": name, "batch": instances, "ms": ms[name], "repeats": repeats}
        for name in sides
    ]
    rows[1]["ratio"] = ms["get_problem_data"] / ms["ours"]
    return rows


def main(
    batch: Annotated[int, typer.Option(help="Instances of the layer.")] = 256,
    repeats: Annotated[int, typer.Option(help="Turns of each side.")] = 7,
    instances: Annotated[int, typer.Option(help="Instances to canonicalise.")] = 1000,
    profile: Annotated[bool, typer.Option(help="Print where our pass spends its time.")] = False,
) -> None:
    """Measure both, print a table, write the records."""
    rows = layers(batch, repeats, profile) + canonicalisation(instances, min(repeats, 5))
    about = {
        "versions": versions(PACKAGES),
        "revision": revision(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("".join(json.dumps({**row, **about}, default=describe) + "\n" for row in rows))
    print(f"{'ms per instance':36} forward backward    both   ratio    KKT  gradient error  fair")
    for row in rows:
        ratio = f"{row['ratio']:7.1f}" if "ratio" in row else " " * 7
        if row["measure"] == "layer":
            ms = row["ms_per_instance"]
            print(
                f"{row['side']:36} {ms['forward']:7.3f} {ms['backward']:8.3f} {ms['both']:7.3f} {ratio} "
                f"{row['kkt_error']:6.0e}  {row['gradient_error']:14.0e}  {row['fair']}"
            )
        else:
            print(f"canonicalising {row['batch']}: {row['side']:20} {row['ms']:9.1f} ms {ratio}")
    print(f"Records: {OUT}")


if __name__ == "__main__":
    typer.run(main)
