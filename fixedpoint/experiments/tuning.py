"""Static settings by search: the classical baseline that everything learned must beat.

For each accelerator the settings of the family (its map's, and the form of the problem) and the accelerator's own are
chosen together, by evaluations to 1e-3 on training instances, with differential evolution (SciPy).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fixedpoint import files
from fixedpoint.experiments.evaluation import generator, trace
from fixedpoint.experiments.evaluation import score as score_of
from fixedpoint.plugins.registry import FamilySource, accelerators, families


class Tuned(NamedTuple):
    """The best settings found for one accelerator on one family."""

    family: dict[str, Any]
    """Options of the family, the map's settings among them."""
    accelerator: dict[str, Any]
    """Options of the accelerator."""
    score: float
    """The objective on the training instances."""


Report = Callable[[int, float], None]
"""Called after every trial with (trials so far, best score)."""


def tune(
    family: FamilySource,
    accelerator: str,
    *,
    instances: int = 20,
    steps: int = 60,
    trials: int = 200,
    seed: int = 0,
    guesses: Sequence[Tuned] = (),
    fixed: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Tuned:
    """Search the settings of one accelerator on one family.

    Args:
        family: a registered name, "FILE.py:NAME" or a family.
        accelerator: a registered name.
        instances: training instances (split "train" of `seed`; comparisons use other splits).
        steps: evaluations per trial; an instance that does not reach the target counts as more than that.
        trials: about how many settings to try.
        seed: of the instances and of the search.
        guesses: what was found for other accelerators on this family; the search starts from these among others.
        fixed: options of the family that are given (a named setting); then only the accelerator's own are searched.
        report: progress.

    Raises:
        RegistryError: an unknown name; ValueError: a budget below its least.
    """
    for name, value, least in (("instances", instances, 1), ("steps", steps, 1), ("trials", trials, 10)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    plugins: dict[str, Any] = {"family": families.load(family), "accelerator": accelerators.load(accelerator)}
    spaces = {owner: getattr(plugin, "tunable", {}) for owner, plugin in plugins.items()}  # a factory has none
    if fixed is not None:
        spaces["family"] = {}
    names = [(owner, name) for owner, space in spaces.items() for name in space]
    problems: dict[str, Any] = {}

    def options(point: np.ndarray) -> dict[str, dict[str, Any]]:
        chosen: dict[str, dict[str, Any]] = {"family": {}, "accelerator": {}}
        for (owner, name), unit in zip(names, point, strict=True):
            chosen[owner][name] = spaces[owner][name].at(float(unit))
        return chosen

    def score(chosen: dict[str, dict[str, Any]]) -> float:
        bound = families.create(family, **(fixed or {}), **chosen["family"])
        if bound.form not in problems:
            problems[bound.form] = bound.sample(instances, generator=generator(seed, "train"))
        method = accelerators.create(accelerator, **chosen["accelerator"])
        try:
            method.bind(bound.map.signature)
            errors = trace(bound, method, problems[bound.form], steps)[0].numpy()
        except (ValueError, ArithmeticError):  # settings that the map or its linear system refuses
            return 10.0 * steps
        return score_of(errors, steps)

    best = Tuned({}, {}, score({"family": {}, "accelerator": {}}))
    count = 0

    def trial(point: np.ndarray) -> float:
        nonlocal best, count
        chosen = options(point)
        value = score(chosen)
        if value < best.score:
            best = Tuned(**chosen, score=value)
        count += 1
        if report is not None:
            report(count, best.score)
        return value

    if names:
        first = np.random.default_rng(seed).random((max(5, min(2 * len(names) + 4, trials // 4)), len(names)))
        for row, guess in zip(first, guesses, strict=False):
            known = {"family": guess.family, "accelerator": guess.accelerator}
            for column, (owner, name) in enumerate(names):
                if name in known[owner]:
                    row[column] = spaces[owner][name].unit(known[owner][name])
        _search(trial, first, trials, seed)
    return best


def _search(objective: Callable[[np.ndarray], float], first: np.ndarray, trials: int, seed: int) -> None:
    """Differential evolution on the unit cube from a first population, with about `trials` evaluations in all."""
    from scipy.optimize import differential_evolution

    population, dimension = first.shape
    differential_evolution(
        objective,
        [(0.0, 1.0)] * dimension,
        init=first,
        maxiter=max(1, trials // population - 1),
        mutation=(0.4, 0.9),
        recombination=0.8,
        tol=0,
        polish=False,
        rng=np.random.default_rng(seed + 1),
    )


def save(path: Path, family: str, tuned: dict[str, Tuned], provenance: dict[str, Any]) -> None:
    """Write a settings file (JSON), whole or not at all; accelerators already in it that were not tuned are kept.

    Raises:
        OSError: the folder cannot be written.
    """
    kept = {}
    if path.exists():
        kept = load(path, family)["accelerators"]
    entries = {name: {**entry._asdict(), "provenance": provenance} for name, entry in tuned.items()}
    content = {"family": family, "accelerators": dict(sorted({**kept, **entries}.items()))}
    files.write_text(path, json.dumps(content, indent=2) + "\n")


def load(path: Path, family: str) -> dict[str, Any]:
    """Read a settings file.

    Raises:
        ValueError: not a settings file, or another family's.
    """
    try:
        content = json.loads(path.read_text())
        found = content["family"]
        for entry in content["accelerators"].values():
            if not isinstance(entry["family"], dict) or not isinstance(entry["accelerator"], dict):
                raise TypeError("options that are no object")
            if not math.isfinite(entry["score"]):
                raise ValueError(f"score {entry['score']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"settings file {path}: cannot be read ({type(error).__name__}: {error})") from None
    if found != family:
        raise ValueError(f"settings file {path}: belongs to family {found!r}, not {family!r}")
    return content
