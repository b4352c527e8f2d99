"""Settings for the scs package, by a random search as long as the one that ours get (`benchmarks.speed.tuning.own`).

The objective is milliseconds per instance (of processor time, over the threads: others at work on the machine change
it little) to 1e-3 plus a tenth of those to 1e-4, at true KKT error, on training instances. Every trial counts twice: as
scs stops by itself and, for the oracle rows, as if it stopped at the first iteration at which an instance meets the
target.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import store
from benchmarks.speed import instances, measure
from benchmarks.speed.peers import Scs
from benchmarks.speed.solver import Job, Solver
from fixedpoint import Choice, files
from fixedpoint.experiments.evaluation import revision, versions
from fixedpoint.search_space import Range, SearchSpace
from maps.scs import ConeProgram

TRIALS, COUNT, SEED, REPEATS = 80, 16, 0, 3
MOST = 500
"""Iterations after which a trial gives up."""
HOPELESS = 3.0
TARGETS = {1e-3: 1.0, 1e-4: 0.1}
"""Target and its weight."""
SPREAD, FLIP = 0.12, 0.15
"""How far a trial strays from the best one so far: standard deviation on the unit interval; share of other choices."""
PATH = measure.HERE / "scs.json"

_BOTH = Choice((True, False))
SPACE: dict[str, SearchSpace] = {
    "normalize": _BOTH,
    "scale": Range(1e-2, 1e3, log=True),
    "rho_x": Range(1e-6, 1e-1, log=True),
    "alpha": Range(1.0, 1.9),
    "adaptive_scale": _BOTH,
    "acceleration_lookback": Range(0, 20, integer=True),
    "acceleration_interval": Range(1, 10, integer=True),
    "acceleration_type_1": _BOTH,
}
FORMS = {"lasso": ("quadratic", "conic"), "robust-kalman": ("quadratic", "conic"), "robust-pca": ("conic",)}
SHARED = ("robust-kalman", "robust-pca")
"""Families whose instances share A and P, so that a workspace may be kept."""

Point = dict[str, Any]


def tune(family: str, trials: int = TRIALS, path: Path = PATH, say: Callable[[str], None] = print) -> None:
    """Search the settings of one family and keep the best in `path`, with where they came from."""
    rng = np.random.default_rng(SEED)
    space = {**SPACE, "form": Choice(FORMS[family]), "reuse": Choice((True, False) if family in SHARED else (False,))}
    default = {"form": measure.default_form(family), "reuse": False}
    best = {"tuned": (math.inf, default), "oracle": (math.inf, default)}
    at_first: dict[str, float] = {}
    waiting = [default, *guesses(family)]
    for trial in range(trials):
        if trial < len(waiting):
            point = waiting[trial]
        else:
            point = draw(space, rng, near=None if trial % 3 == 0 else best[("tuned", "oracle")[trial % 3 - 1]][1])
        found = dict.fromkeys(best, math.inf)
        for kind in best:
            if kind == "tuned" or found["tuned"] < math.inf:  # what does not get there needs no oracle
                found[kind] = objective(family, point, oracle=kind == "oracle", best=best[kind][0])
            if found[kind] < best[kind][0]:
                best[kind] = (found[kind], point)
        at_first = at_first or found
        texts = (f"{kind} {found[kind]:.3f} (best {value:.3f})" for kind, (value, _) in best.items())
        say(f"{family} {trial + 1}/{trials}: {', '.join(texts)}")
    known = json.loads(path.read_text()) if path.exists() else {}
    known[family] = {
        **{kind: {"score": value, **split(point)} for kind, (value, point) in best.items()},
        "score_of_defaults": at_first,
        "provenance": {
            "command": f"python -m benchmarks.speed tune {family}",
            **{"trials": trials, "instances": COUNT, "split": "train", "seed": SEED, "cpu": store.cpu()},
            **{"versions": versions(store.PACKAGES), "revision": revision()},
        },
    }
    files.write_text(path, json.dumps(known, indent=2) + "\n")


def split(point: Point) -> dict[str, Any]:
    """A point of the search as `Scs` takes it."""
    settings = {name: value for name, value in point.items() if name not in ("form", "reuse")}
    return {"form": point["form"], "reuse": point["reuse"], "settings": settings}


def objective(family: str, point: Point, *, oracle: bool, best: float = math.inf) -> float:
    """Milliseconds per training instance to 1e-3, plus a tenth of those to 1e-4; infinite where one is not solved.

    Args:
        family: whose training instances.
        point: of the search.
        oracle: stop every instance at the first iteration at which it meets the target.
        best: of the search so far: what is `HOPELESS` times as slow is timed once only.
    """
    chosen = split(point)
    settings = {**chosen["settings"], "max_iters": MOST}
    solver = Scs("trial", chosen["form"], settings, reuse=chosen["reuse"], oracle=oracle)
    programs = instances.calls(family, chosen["form"], COUNT, COUNT, split="train")
    return milliseconds(solver, programs, TARGETS, best)


def milliseconds(
    solver: Solver, programs: Sequence[ConeProgram], targets: Mapping[float, float], best: float = math.inf
) -> float:
    """Of processor time per instance, summed over the targets by their weights; infinite where one is missed.

    Args:
        solver: of the trial.
        programs: one call for each.
        targets: true KKT error -> weight.
        best: what is `HOPELESS` times as slow is timed once only.
    """
    total, count = 0.0, sum(program.batch or 1 for program in programs)
    for target, weight in targets.items():
        job = solver.prepare(programs, target)
        least = processor_seconds(job)
        if bool((measure.referee(programs, job) > target * (1 + measure.ROUNDING)).any()):
            return math.inf
        if least * 1e3 / count < HOPELESS * best:
            least = min(least, *(processor_seconds(job) for _ in range(REPEATS - 1)))
        total += weight * least * 1e3 / count
    return total


def processor_seconds(job: Job) -> float:
    """Of one run, over its threads: what it takes where nobody else is at work."""
    gc.collect()
    began = time.process_time()
    job.run()
    return (time.process_time() - began) / job.threads


def guesses(family: str) -> Sequence[Point]:
    """Our own tuned settings as far as scs has them: with our acceleration or its own, or with none."""
    found = []
    for row in json.loads((measure.HERE / "settings.json").read_text())[family].values():
        ours = {name: row["settings"][name] for name in ("scale", "rho_x", "alpha") if name in row["settings"]}
        ours["normalize"] = row["settings"]["normalize"] is not False  # scs has no "shared"
        ours |= {"adaptive_scale": False, "form": measure.default_form(family), "reuse": family in SHARED}
        memory = row.get("options", {}).get("memory", 0)
        accelerated = {"acceleration_lookback": memory, "acceleration_interval": 1, "acceleration_type_1": False}
        plain = {"acceleration_lookback": 0, "acceleration_interval": 1, "acceleration_type_1": True}
        found += [{**ours, **(accelerated if memory else plain)}]
    return found


def draw(space: dict[str, SearchSpace], rng: np.random.Generator, near: Point | None) -> Point:
    """A point anywhere, or one near another; what that one leaves to scs's default is drawn anywhere."""
    point: Point = {}
    for name, setting in space.items():
        unit = rng.random()
        if near is not None and name in near:
            if isinstance(setting, Range):
                unit = float(np.clip(setting.unit(near[name]) + SPREAD * rng.standard_normal(), 0.0, 1.0))
            elif unit > FLIP:
                unit = setting.unit(near[name])
            else:
                unit = rng.random()
        point[name] = setting.at(unit)
    return point
