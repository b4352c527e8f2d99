"""Choose the settings of robust PCA with both norms in cones of their own, accelerator by accelerator.

    .venv/bin/python -m tools.norms        (from the repository root; about five minutes)

Writes `maps/scs/families/robust_pca.norms.json`, the tuned settings of `--setting norms`: scale and relaxation first,
then the accelerator's own arguments, by search on training instances. What is minimised counts all targets alike: the
tail to 1e-4 is the hard part of this family.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

import fixedpoint as fp
from fixedpoint import files
from fixedpoint.experiments.comparison.compare import setting_options, settings_file
from fixedpoint.experiments.evaluation import TARGETS, evaluations_to, generator, revision, trace, versions
from maps.scs.families.robust_pca import RobustPCA

FAMILY, SETTING = "robust-pca", "norms"
SEARCH = {"instances": 128, "steps": 80, "seed": 1}
GRID = {"scale": (0.16, 0.18, 0.2, 0.22), "alpha": (1.5, 1.8, 1.95), "tau_factor": (25.0,)}
"""Settings of the map. The weight of tau hardly matters: 5 to 100 are alike."""
OWN = {"memory": (6, 8, 10, 15, 20), "start": (0, 2)}
ACCELERATORS = ("picard", "anderson-1", "anderson-2", "safeguarded")

Options = dict[str, Any]


def missed(errors: np.ndarray) -> float:
    """Geometric mean of medians and 90th percentiles of the evaluations to each target, from errors (T, B).

    What is not reached counts as twice the steps.
    """
    steps = len(errors)
    counts = [evaluations_to(target, np.arange(1, steps + 1), errors) for target in TARGETS]
    found = np.quantile(np.minimum(counts, 2.0 * steps), [0.5, 0.9], axis=1)
    return float(np.exp(np.log(found).mean()))


def searched(accelerator: str) -> Options:
    """The best settings on training instances, as an entry of a settings file."""
    began = time.perf_counter()
    fixed = setting_options(FAMILY, SETTING)
    rng = generator(SEARCH["seed"], "train")
    problem = fp.families.create(FAMILY, **fixed).sample(SEARCH["instances"], generator=rng)

    def score(here: tuple[Options, Options]) -> float:
        family = fp.families.create(FAMILY, **fixed, **here[0])
        errors, _ = trace(family, fp.accelerators.create(accelerator, **here[1]), problem, SEARCH["steps"])
        return missed(errors.numpy())

    own: Options = {} if accelerator == "picard" else {"memory": 10, "start": 0}
    tried = {score(pair): pair for pair in ((settings, own) for settings in _grid(GRID))}
    settings = tried[min(tried)][0]
    if own:
        tried |= {score(pair): pair for pair in ((settings, options) for options in _grid(OWN))}
    best = min(tried)
    provenance = {**SEARCH, "trials": len(tried), "seconds": round(time.perf_counter() - began, 1)}
    provenance |= {"versions": versions(), "revision": revision()}
    print(f"{accelerator}: {best:.2f} evaluations with {tried[best]}", flush=True)
    return {"family": tried[best][0], "accelerator": tried[best][1], "score": best, "provenance": provenance}


def _grid(values: dict[str, Iterable[Any]]) -> list[Options]:
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def main() -> None:
    """Search, write."""
    found = {name: searched(name) for name in ACCELERATORS}
    path = RobustPCA.tuned_file().with_suffix(f".{SETTING}.json")
    files.write_text(path, json.dumps({"family": f"{FAMILY}.{SETTING}", "accelerators": found}, indent=2) + "\n")
    assert settings_file(FAMILY, setting=SETTING) is not None
    print(f"Settings: {path}")


if __name__ == "__main__":
    main()
