"""The safeguard's promise over all families: whatever the weights are, it solves what the plain map solves, as fast.

243 problems, at least 200 of which the plain map solves; each with nine learned accelerators, untrained and with small
and large random weights.
"""

from __future__ import annotations

import pytest
import torch

import fixedpoint as fp
from fixedpoint.experiments.comparison.compare import settings_file, starting_point
from fixedpoint.experiments.evaluation import generator
from fixedpoint.plugins.composition import compose

PROBLEMS = {  # family: (instances, tolerance that plain iteration needs some dozens of evaluations for, most of them)
    "affine": (50, 1e-8, 200),
    "diabetes-lasso": (50, 1e-5, 400),
    "elastic-net": (45, 1e-2, 600),
    "lasso": (3, 1e-4, 400),
    "lasso.paper": (5, 1e-3, 1000),
    "pagerank": (45, 1e-8, 3000),
    "value-iteration": (45, 1e-5, 1500),
}
ACCELERATORS = (
    "gru",
    "lstm",
    "coordinate-gru",
    "site-gru",
    "mixing",
    "warm-start",
    "gru+anderson-2",
    "secants",
    "warm-start+learned-momentum",
)


def randomise(accelerator: fp.Accelerator, scale: float, seed: int = 0) -> None:
    """Normal weights of that standard deviation."""
    assert isinstance(accelerator, torch.nn.Module)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in accelerator.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=draws))


def check(family: fp.ProblemFamily, problem: object, plain: fp.Solution, guarded: fp.Accelerator, limit: tuple) -> None:
    tolerance, most = limit
    solution = fp.solve(family.map, problem, guarded, tolerance=tolerance, max_evaluations=2 * most)
    solved = plain.converged
    assert bool(solution.converged[solved].all()), solution.statuses
    assert bool((solution.evaluations[solved] <= 1.2 * plain.evaluations[solved]).all()), (
        solution.evaluations[solved] / plain.evaluations[solved]
    ).max()
    assert bool(torch.isfinite(solution.x).all())
    assert bool(torch.isfinite(solution.residual).all())


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_no_weights_make_a_safeguarded_accelerator_slower_than_the_plain_map(name: str) -> None:
    count, *limit = PROBLEMS[name]
    kind, _, setting = name.partition(".")
    file = settings_file(kind, setting=setting or None)
    family = fp.families.create(kind, **starting_point(kind, setting or None, file)[0])  # as it is learned on
    problem = family.sample(count, generator=generator(3, "validation"))
    plain = fp.solve(family.map, problem, tolerance=limit[0], max_evaluations=limit[1])
    assert int(plain.converged.sum()) >= 0.9 * count, "problems that the plain map solves are what is promised for"
    for accelerator in ACCELERATORS:
        for scale in (0.0, 0.1, 1.0):
            guarded = compose(accelerator).bind(family.map.signature)
            if scale:
                randomise(guarded, scale)
            check(family, problem, plain, guarded, tuple(limit))


@pytest.mark.parametrize("accelerator", ["gru", "warm-start+anderson-2"])
def test_what_a_trained_accelerator_shows_in_training_is_held_against_it(accelerator: str) -> None:
    """Weights that are spoilt after training are noticed by residuals that training never saw."""
    tiny = {"updates": 2, "instances": 32, "batch": 16, "horizon": 6, "validation": 16, "evaluations": 10}
    trained = fp.train("affine", accelerator, **tiny)
    family = fp.families.create("affine")
    problem = family.sample(30, generator=generator(3, "test"))
    plain = fp.solve(family.map, problem, tolerance=1e-8, max_evaluations=200)
    check(family, problem, plain, trained, (1e-8, 200))
    randomise(trained, 1.0)
    check(family, problem, plain, trained, (1e-8, 200))
