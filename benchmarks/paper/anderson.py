"""Anderson acceleration at its best: memory and starting step chosen on training instances, the choice recorded."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from benchmarks.paper.problems import SEED, PaperProblem
from benchmarks.paper.quantities import Quantities, quantities
from fixedpoint import accelerators
from fixedpoint.experiments.evaluation import Record, generator

MEMORIES = (5, 10, 20)
STARTS = (0, 2, 5, 8)
INSTANCES = 32
"""Training instances that the choice is made on."""
LOST = 1e6
"""What counts where half of the instances have no finite number."""


def choose(problem: PaperProblem, accelerator: str) -> Record:
    """Try every memory and start; the best has the smallest mean logarithm of both medians at the problem's marks.

    Args:
        problem: which.
        accelerator: "anderson-1" or "anderson-2".

    Returns:
        "options" (the best), "score" (mean log10 of the medians of residual and error) and all "scores".
    """
    family = problem.bound()
    instances = family.sample(INSTANCES, generator=generator(SEED, "train"))
    scores: list[dict[str, Any]] = []
    for memory, start in product(MEMORIES, STARTS):
        options = {"memory": memory, "start": start}
        method = accelerators.create(accelerator, **options)
        found = quantities(family, method, instances, problem.steps)
        scores.append({**options, "score": score(found, problem.marks)})
    best = min(scores, key=lambda one: one["score"])
    return {
        "options": {name: best[name] for name in ("memory", "start")},
        "score": best["score"],
        "scores": scores,
        "instances": INSTANCES,
    }


def score(found: Quantities, marks: tuple[int, ...]) -> float:
    """Mean log10 of the medians of the paper's residual and of the error at the marks."""
    rows = [k - 1 for k in marks]
    medians = np.concatenate([np.median(found[name][rows], axis=1) for name in ("residual", "error")])
    return float(np.mean(np.log10(np.clip(np.where(np.isfinite(medians), medians, LOST), 1e-16, LOST))))
