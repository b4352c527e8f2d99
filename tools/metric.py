"""Learn the metric of the robust Kalman filter, and choose Anderson's settings on top of it.

    .venv/bin/python -m tools.metric        (from the repository root; two or three minutes)

Writes `maps/scs/families/robust_kalman.metric.json`, the tuned settings of `--setting metric`: weights of the
inequalities and relaxation by gradient (`maps.scs.learn_metric`), then for each accelerator its own arguments and the
relaxation by search, all on training instances.
"""

from __future__ import annotations

import itertools
import json
import textwrap
import time
from collections.abc import Iterator, Mapping
from typing import Any

import fixedpoint as fp
from fixedpoint import files
from fixedpoint.experiments.comparison.compare import setting_options, settings_file
from fixedpoint.experiments.evaluation import generator, revision, score, trace, versions
from maps.scs.families.robust_kalman import RobustKalman
from maps.scs.learn_metric import learn

FAMILY, SETTING = "robust-kalman", "metric"
BEGIN = {"scale": 2.5, "alpha": 1.6, "tau_factor": 100.0}
"""Where learning starts: a good static setting without weights."""
LEARNING = {"instances": 512, "steps": 24, "updates": 150, "batch": 24, "seed": 0}
SEARCH = {"instances": 48, "steps": 50, "seed": 1}
ALPHAS = (0.8, 0.9, 1.0)
"""Shares of the learned relaxation that are tried: Anderson acceleration wants less of it than the plain iteration."""


def candidates(accelerator: str) -> Iterator[dict[str, Any]]:
    """Arguments to try."""
    if accelerator == "picard":
        return iter([{}])
    return ({"memory": m, "start": s} for m, s in itertools.product((5, 8, 12, 16, 20), (0, 2, 4)))


def searched(accelerator: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The best arguments and relaxation on training instances, as an entry of a settings file."""
    began = time.perf_counter()
    best: tuple[float, dict[str, Any], dict[str, Any]] = float("inf"), {}, {}
    for share in (1.0,) if accelerator == "picard" else ALPHAS:
        here = {**settings, "alpha": round(settings["alpha"] * share, 4)}
        family = fp.families.create(FAMILY, **setting_options(FAMILY, SETTING), **here)
        problem = family.sample(SEARCH["instances"], generator=generator(SEARCH["seed"], "train"))
        for options in candidates(accelerator):
            errors, _ = trace(family, fp.accelerators.create(accelerator, **options), problem, SEARCH["steps"])
            found = score(errors.numpy(), SEARCH["steps"])
            if found < best[0]:
                best = found, here, options
    provenance = {**SEARCH, "learning": LEARNING, "seconds": round(time.perf_counter() - began, 1)}
    provenance |= {"versions": versions(), "revision": revision()}
    print(f"{accelerator}: score {best[0]:.2f} with {best[2]}, alpha {best[1]['alpha']}", flush=True)
    return {"family": best[1], "accelerator": best[2], "score": best[0], "provenance": provenance}


def main() -> None:
    """Learn, search, write."""
    family = fp.families.create(FAMILY, **setting_options(FAMILY, SETTING), **BEGIN)

    def report(update: int, loss: float) -> None:
        if update % 25 == 0:
            print(f"update {update}: loss {loss:.3f}", flush=True)

    settings = {**BEGIN, **learn(family, report=report, **LEARNING)._asdict()}
    found = {name: searched(name, settings) for name in ("picard", "anderson-1", "anderson-2")}
    text = json.dumps({"family": f"{FAMILY}.{SETTING}", "accelerators": found}, indent=2)
    row = json.dumps(settings["weights"], indent=2).replace("\n  ", "\n          ").replace("\n]", "\n        ]")
    short = "\n".join(textwrap.wrap(", ".join(str(w) for w in settings["weights"]), 110))
    text = text.replace(row, f"[\n{short}\n]")
    path = RobustKalman.tuned_file().with_suffix(f".{SETTING}.json")
    files.write_text(path, text + "\n")
    assert settings_file(FAMILY, setting=SETTING) is not None
    print(f"Settings: {path}")


if __name__ == "__main__":
    main()
