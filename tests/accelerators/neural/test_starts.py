"""Learned and fitted starts: what they predict, and that each is what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

import fixedpoint as fp
from accelerators import Schedule
from accelerators.neural.baselines import FittedStart
from fixedpoint.experiments.evaluation import generator
from fixedpoint.learning.learned import Examples
from fixedpoint.learning.training import train
from maps.affine import Affine, AffineProblem
from tests.accelerators.learners import FAMILY, evaluations, examples, features, problems, taught, untrained
from tests.learning.toys import SMALL, OneMatrix

FITTED = ["mean-start", "ridge-start", "nearest-start"]


class Open(Affine):
    """An affine map that shows its b."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.signature = fp.Signature(size, features=size, coordinates={"map": "affine"})

    def featurize(self, context: Any) -> Tensor:
        return context.rows.b


class Linear(OneMatrix):
    """x = A x + b with one A: the solution is linear in what is seen of the problem."""

    def __init__(self) -> None:
        super().__init__()
        self.map = Open(4)


FAMILIES = Linear()


def drawn(count: int, split: str = "train") -> tuple[AffineProblem, Tensor]:
    problem = FAMILIES.sample(count, generator=generator(0, split))
    return problem, FAMILIES.reference(problem)


def fitted(name: str, count: int = 30, **options: Any) -> Any:
    """A fitted start and the (b, solution) it was fitted to."""
    problem, solutions = drawn(count)
    method = fp.accelerators.create(name, **options).bind(FAMILIES.map.signature)
    path = fp.unroll(FAMILIES.map, problem, None, steps=4)
    method.fit(Examples(path.x, path.fx - path.x, problem.b, solutions))
    return method, problem.b, solutions


def predicted(method: Any, b: Tensor) -> Tensor:
    return method.init(torch.zeros_like(b), b)[0]


@pytest.mark.parametrize("name", FITTED)
def test_unfitted_it_is_the_cold_start(name: str) -> None:
    method = fp.accelerators.create(name).bind(FAMILIES.map.signature)
    x0 = evaluations(3, 1, size=4)[0].x
    assert torch.equal(method.init(x0, x0)[0], x0)
    path = fp.unroll(FAMILIES.map, drawn(3)[0], method, steps=5)
    assert torch.equal(path.x, fp.unroll(FAMILIES.map, drawn(3)[0], None, steps=5).x)


def test_mean_start_is_the_mean_solution() -> None:
    method, b, solutions = fitted("mean-start")
    assert torch.allclose(predicted(method, b), solutions.mean(0).expand(30, -1), rtol=1e-6, atol=1e-6)
    assert torch.equal(predicted(method, b)[:1], predicted(method, 7 + b)[:1]), "whatever the problem is"


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_ridge_start_is_ridge_regression(penalty: float) -> None:
    """scikit-learn's, on standardised inputs, the penalty relative to the mean of the kernel's diagonal."""
    method, b, solutions = fitted("ridge-start", penalty=penalty)
    z = torch.cat([torch.zeros_like(b), b], 1)
    scale = z.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1)
    standard = ((z - z.mean(0)) / scale).numpy()
    alpha = penalty * float(np.mean((standard**2).sum(1)))
    reference = Ridge(alpha=alpha, solver="cholesky").fit(standard, solutions.numpy())
    other = drawn(5, "test")[0].b
    seen = ((torch.cat([torch.zeros_like(other), other], 1) - z.mean(0)) / scale).numpy()
    assert np.allclose(predicted(method, other).numpy(), reference.predict(seen), rtol=1e-4, atol=1e-4)


def test_ridge_start_learns_a_linear_problem() -> None:
    method, _, _ = fitted("ridge-start", penalty=1e-6)
    problem, solutions = drawn(20, "test")
    assert (predicted(method, problem.b) - solutions).norm() < 1e-2 * solutions.norm()
    solution = fp.solve(FAMILIES.map, problem, method, tolerance=1e-2)
    plain = fp.solve(FAMILIES.map, problem, None, tolerance=1e-2)
    assert solution.evaluations.double().mean() < 0.3 * plain.evaluations.double().mean()


def test_nearest_start_knows_what_it_has_seen() -> None:
    method, b, solutions = fitted("nearest-start", instances=30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(predicted(method, b[order]), solutions[order], rtol=1e-6, atol=1e-6), (
        "exact on training points"
    )
    problem, _ = drawn(50, "test")
    distances = torch.cdist(problem.b / b.std(0, correction=0), b / b.std(0, correction=0))
    assert torch.allclose(predicted(method, problem.b), solutions[distances.argmin(1)], rtol=1e-6, atol=1e-6)


def test_nearest_start_remembers_as_many_as_it_was_told() -> None:
    few, b, solutions = fitted("nearest-start", instances=10)
    assert torch.allclose(predicted(few, b[:10]), solutions[:10], rtol=1e-6)
    later = predicted(few, b[10:]).float()
    assert all(any(torch.equal(x, known) for known in few.answers) for x in later)
    many, b, solutions = fitted("nearest-start", instances=70)
    assert many.known.shape == (70, 8)
    assert torch.allclose(predicted(many, b), solutions, rtol=1e-6), "fewer examples are repeated"


@pytest.mark.parametrize("name", FITTED)
def test_training_fits_it(name: str) -> None:
    trained: Any = train(FAMILIES, fp.accelerators.create(name), **SMALL)
    assert float(trained.fitted) == 1
    _, solutions = drawn(16)
    expected, b, _ = fitted(name, 16)
    assert torch.allclose(predicted(trained, b), predicted(expected, b), rtol=1e-4, atol=1e-4)
    assert isinstance(trained, FittedStart)
    assert trained.provenance is not None
    assert predicted(trained, b).std() <= solutions.std() * 1.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ridge-start", {"penalty": 0.0}, "penalty: expected a number > 0"),
        ("ridge-start", {"penalty": -1.0}, "penalty"),
        ("nearest-start", {"instances": 0}, "instances: expected at least 1"),
    ],
)
def test_bad_arguments(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.accelerators.create(name, **options)


def test_a_warm_start_is_followed_by_the_plain_iteration() -> None:
    method = taught("warm-start")
    path = fp.unroll(FAMILY.map, problems(), method, steps=6)
    assert (path.x[0] != 0).all()
    assert torch.equal(path.x[1:], path.fx[:-1])
    assert torch.equal(path.x, fp.unroll(FAMILY.map, problems(), None, steps=6, start=path.x[0].detach()).x)
    schedule = Schedule([method, "anderson-2"])
    assert torch.equal(fp.unroll(FAMILY.map, problems(), schedule, steps=3).x[0], path.x[0])


@pytest.mark.parametrize("name", ["warm-start", "gru", "lstm", "coordinate-gru"])
def test_a_learned_start_is_in_units_of_how_far_the_iteration_travels(name: str) -> None:
    method = untrained(name)
    seen = examples()
    method.fit(seen)
    travelled = (seen.x - seen.x[0]).square().mean((0, 1)).sqrt()
    assert travelled.max() > 1.3 * travelled.min()
    last = {"warm-start": "network.body", "coordinate-gru": "start_network"}.get(name, "start_network.body")
    with torch.no_grad():
        method.get_submodule(last)[-1].bias.fill_(2.0)
    x0 = torch.ones(3, 5, dtype=torch.float64)
    x, _ = method.init(x0, features(3))
    assert torch.allclose(x, x0 + 2 * travelled, rtol=1e-2)


@pytest.mark.parametrize("name", ["warm-start", "gru", "lstm", "mean-start", "ridge-start", "nearest-start"])
def test_what_a_start_is_predicted_from_is_standardised(name: str) -> None:
    method = fp.accelerators.create(name).bind(FAMILY.map.signature)
    seen = examples(solutions=torch.zeros(20, 5, dtype=torch.float64))
    method.fit(seen)
    inputs = method.inputs if name.endswith("-start") and name != "warm-start" else None
    inputs = inputs or method.get_submodule("network" if name == "warm-start" else "start_network").inputs
    assert seen.features is not None
    z = inputs(seen.x[0], seen.features)
    assert z.shape == (20, 17)
    assert torch.allclose(z.mean(0), torch.zeros(17), atol=1e-4)
    assert torch.allclose(z[:, 5:].std(0, correction=0), torch.ones(12), rtol=1e-3)


@pytest.mark.parametrize("context", [True, False])
def test_a_warm_start_learns(context: bool) -> None:
    """To the solutions, where it can see the problem; else to something like their mean."""
    method = fp.accelerators.create("warm-start", width=16, context=context)
    plan = {**SMALL, "loss": "solution", "updates": 150, "learning_rate": 1e-2, "batch": 16, "instances": 128}
    trained = train(FAMILIES, method, **{**plan, "horizon": 2, "validate_every": 150, "weights": "even"})
    problem, solutions = drawn(40, "test")
    x = fp.unroll(FAMILIES.map, problem, trained, steps=1).x[0]
    distance = (x - solutions).norm() / solutions.norm()
    assert distance < 0.3 if context else 0.8 < distance < 1.2
