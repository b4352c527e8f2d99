"""Our settings for large batches, by the search that the scs package gets (`benchmarks.speed.tuning.scs_package`).

    python -m benchmarks.speed tune --ours                    (every row that is searched: an hour)
    python -m benchmarks.speed tune --ours lasso --trials 40

The best settings of a row go to `settings.json` with where they came from; rows that are not searched (in a learned
metric, with trained weights) stay as they are. The objective is processor milliseconds per instance, in one call on
training instances, to the targets of a task at true KKT error; settings with which an instance misses one are out.
Draws are seeded, but they follow what was fastest so far, so that two runs on a busy machine may part.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fixedpoint as fp
from benchmarks import store
from benchmarks.speed import instances, layer, measure
from benchmarks.speed.solver import Ours
from benchmarks.speed.tuning import scs_package
from fixedpoint import Choice, files
from fixedpoint.experiments.evaluation import revision, versions
from fixedpoint.search_space import Range, SearchSpace
from maps.scs import SCS, ConeProgram
from maps.scs.cvxpy import CvxpyFamily

PATH = measure.HERE / "settings.json"
CHECKS: Mapping[str, SearchSpace] = {
    "first_check": Range(4, 30, integer=True),
    "check_interval": Range(2, 8, integer=True),
}
IDLE = ("rho_x", "zero_cone_factor")
"""Settings that mean nothing where x and the duals of equations are eliminated."""
_BATCH = {"adaptive_scale": False, "precision": "mixed"}


class Task(NamedTuple):
    """A row of `settings.json` whose settings are searched."""

    row: str
    form: str
    accelerator: str = "picard"
    """Its own arguments are searched too."""
    eliminate: bool = False
    """Whether `SCS(eliminate=True)` is tried as well; then nothing is searched that is idle there."""
    given: Mapping[str, Any] = {**_BATCH}
    """Settings that are not searched."""
    workers: int | None = 2
    """Of the row; the search itself has one process, whose time can be counted."""
    targets: Mapping[float, float] = scs_package.TARGETS
    """Target and its weight."""
    count: int = 128
    """Training instances, in one batch."""


LAYER = "layer"
"""The problem of `benchmarks/speed/cvxpy_family.py`; all others are families."""
_LAYER = {"adaptive_scale": False, "chunk": None}
_WHOLE = {**_BATCH, "chunk": 1024}
"""In one process, on torch's threads."""
TASKS: dict[str, tuple[Task, ...]] = {
    "lasso": (
        Task("picard", "quadratic", eliminate=True, given={**_BATCH, "chunk": 171}),
        Task("anderson-2", "quadratic", "anderson-2"),
    ),
    "robust-kalman": (
        Task("picard, no learned metric", "quadratic", eliminate=True, given=_WHOLE, workers=1),
        Task("anderson-2", "quadratic", "anderson-2", given={**_BATCH, "chunk": 128}, workers=1),
    ),
    "robust-pca": (
        Task("picard", "nuclear", count=16),
        Task("safeguarded", "nuclear", "safeguarded", count=16),
    ),
    LAYER: (Task("picard", "cvxpy", eliminate=True, given=_LAYER, workers=None, targets={1e-6: 1.0}),),
}


def run(name: str, trials: int = scs_package.TRIALS, path: Path = PATH, say: Callable[[str], None] = print) -> None:
    """`search` for every task of a family, or of the layer."""
    for task in TASKS[name]:
        search(name, task, trials, path, say)


def program(name: str, task: Task) -> ConeProgram:
    """The training instances of a task, as one batch."""
    if name != LAYER:
        return instances.program(name, task.form, task.count, "train")
    problem, parameters, _ = layer.nonnegative_lasso(*layer.SIZE)
    return CvxpyFamily(problem, parameters).program(layer.draw(task.count, *layer.SIZE, seed=layer.SEARCHED))


def space_of(name: str, task: Task) -> dict[str, SearchSpace]:
    """What is searched: what `fixedpoint tune` knows of the map and of the accelerator, and the checks."""
    plugin: Any = SCS if name == LAYER else fp.families.load(name)
    idle = ("form", *(IDLE if task.eliminate else ()))
    space: dict[str, SearchSpace] = {"eliminate": Choice((True, False))} if task.eliminate else {}
    space |= {setting: values for setting, values in plugin.tunable.items() if setting not in idle}
    return {**space, **CHECKS, **own(task)}


def own(task: Task) -> Mapping[str, SearchSpace]:
    """Arguments of the accelerator."""
    plugin: Any = fp.accelerators.load(task.accelerator)
    found: Mapping[str, SearchSpace] = plugin.tunable
    return found


def search(
    name: str, task: Task, trials: int = scs_package.TRIALS, path: Path = PATH, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Search the settings of one task, keep the best as its row in `path`, and return that.

    Args:
        name: of `TASKS`.
        task: one of them.
        trials: settings to try.
        path: a settings file, which is made where there is none.
        say: told after every trial.

    Raises:
        ValueError: no trial solves all instances; the file is left as it was.
    """
    space, whole, rng = space_of(name, task), program(name, task), np.random.default_rng(scs_package.SEED)
    best: tuple[float, scs_package.Point | None] = math.inf, None
    for trial in range(trials):
        point = scs_package.draw(space, rng, near=best[1] if trial % 3 else None)
        found = objective(row_of(task, point), task.targets, whole, best[0])
        if found < best[0]:
            best = found, point
        say(f"{name}, {task.row} {trial + 1}/{trials}: {found:.3f} (best {best[0]:.3f})")
    if best[1] is None:
        raise ValueError(f"{name}, {task.row}: none of {trials} settings solves all {task.count} training instances")
    row = row_of(task, best[1])
    if task.workers:
        row["settings"]["workers"] = task.workers
    row["score"] = best[0]
    row["provenance"] = {
        "command": f"python -m benchmarks.speed tune --ours {name}",
        **{"trials": trials, "instances": task.count, "split": "train", "seed": scs_package.SEED, "cpu": store.cpu()},
        **{"versions": versions(store.PACKAGES), "revision": revision()},
    }
    known = json.loads(path.read_text()) if path.exists() else {}
    known.setdefault(name, {})[task.row] = row
    files.write_text(path, text_of(known))
    return row


def row_of(task: Task, point: scs_package.Point) -> dict[str, Any]:
    """A point of the search as a row of `settings.json`, without workers."""
    options = {name: value for name, value in point.items() if name in own(task)}
    settings = {name: value for name, value in point.items() if name not in options}
    return {
        **{"form": task.form, "accelerator": task.accelerator, "options": options},
        "settings": {**settings, **task.given},
    }


def objective(row: Mapping[str, Any], targets: Mapping[float, float], whole: ConeProgram, best: float) -> float:
    """As `scs_package.milliseconds`, with a bound on evaluations; infinite also for settings that are refused."""
    bounded = {**row, "settings": {**row["settings"], "max_evaluations": scs_package.MOST}}
    try:
        return scs_package.milliseconds(Ours("trial", bounded), [whole], targets, best)
    except (ValueError, ArithmeticError):  # of the map, or of its linear system
        return math.inf


def text_of(settings: Mapping[str, Any]) -> str:
    """A settings file; weights, of which there are hundreds, fill their lines."""

    def filled(found: re.Match[str]) -> str:
        margin, head, numbers = found.groups()
        inside = margin + "  "
        lines = textwrap.fill(" ".join(numbers.split()), 114, initial_indent=inside, subsequent_indent=inside)
        return f"{margin}{head}[\n{lines}\n{margin}]"

    text = json.dumps(settings, indent=2)
    return re.sub(r'^( *)("weights": )\[([^\]]*?)\n *\]', filled, text, flags=re.MULTILINE) + "\n"
