"""The gate in front of learned parts: where they misbehave, an instance goes back to its cold start."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from accelerators import Safeguarded
from accelerators.safeguard import DOUBT, MARGIN
from fixedpoint.experiments.evaluation import generator
from fixedpoint.learning.training import train
from fixedpoint.solve.loop import Iteration, roll
from maps.affine import Affine, AffineProblem
from tests.accelerators.learners import scrambled
from tests.learning.toys import SMALL, OneMatrix


class Told(NamedTuple):
    learned: Tensor


class Leap(fp.Accelerator):
    """Starts where it is told and makes `trial` steps of its own, f(x) + push; then plain ones."""

    uses_features = False

    def __init__(self, start: Tensor, push: float = 0.0, learned_steps: int = 2) -> None:
        self.start, self.push, self.learned_steps = start, push, learned_steps

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Told]:
        return self.start.expand_as(x0), Told(torch.full_like(x0[:, :1], self.learned_steps))

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> Told:
        return Told(torch.zeros_like(x0[:, :1]))

    def step(self, at: fp.Evaluation, state: Told) -> tuple[Tensor, Told]:
        return at.fx + self.push * (state.learned > 0), Told(state.learned - 1)


MAP = Affine(2)
PROBLEM = AffineProblem(0.9 * torch.eye(2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64))
SOLUTION = torch.full((2,), 10.0, dtype=torch.float64)
"""f(x) = 0.9 x + 1: the residual at x is 0.1 (10 - x), at the cold start 1 in every coordinate."""


def path(leap: Leap, usual: list[list[float]] | None = None) -> fp.Trajectory:
    """Guarded; calibrated with the residuals of some instances, evaluation by evaluation, if there are any."""
    guarded = Safeguarded(leap)
    if usual is not None:
        guarded.calibrate(torch.tensor(usual, dtype=torch.float64).mT)
    return fp.unroll(MAP, PROBLEM, guarded, steps=8)


def test_a_stranger_is_first_compared_with_the_cold_start() -> None:
    good = path(Leap(SOLUTION - 1.0))
    assert (good.x[0] == 0).all()
    assert (good.x[1] == 9.0).all()
    assert torch.allclose(good.x[2:], good.fx[1:-1]), "and followed from there"
    bad = path(Leap(SOLUTION + 10.0))
    assert (bad.x[1] == 20.0).all()
    assert torch.equal(bad.x[2], bad.fx[0]), "on from the cold start, that is evaluated already"
    assert torch.allclose(bad.x[3:], bad.fx[2:-1], rtol=1e-12)


def test_every_step_of_a_stranger_must_be_fast() -> None:
    """A good start and two bad steps: with the second it is sent back."""
    leap = Leap(SOLUTION - 1.0, push=5.0)
    found = path(leap)
    assert (found.x[1] == 9.0).all()
    assert torch.allclose(found.x[2], found.fx[1] + 5.0)
    assert torch.allclose(found.x[3], found.fx[2] + 5.0)
    residuals = torch.linalg.vector_norm(found.fx - found.x, dim=2)[:4, 0] / 2**0.5
    assert residuals[2] < DOUBT**2
    assert residuals[3] > DOUBT**3
    assert torch.equal(found.x[4], found.fx[0])
    halting = path(Leap(SOLUTION - 1.0, push=6.4))
    residuals = torch.linalg.vector_norm(halting.fx - halting.x, dim=2)[:3, 0] / 2**0.5
    assert DOUBT**2 < residuals[2] < DOUBT
    assert torch.equal(halting.x[3], halting.fx[0])
    slow = path(Leap(torch.full((2,), 2.5, dtype=torch.float64)))
    assert DOUBT < 0.75
    assert torch.equal(slow.x[2], slow.fx[0]), "better than the cold start, not enough"
    fast = path(Leap(torch.full((2,), 3.5, dtype=torch.float64), learned_steps=0))
    assert torch.equal(fast.x[2], fast.fx[1])


def test_one_that_was_calibrated_starts_at_once() -> None:
    size = 0.1 * 2**0.5  # the residual at SOLUTION - 1
    usual = [size, 0.9 * size, 0.81 * size]
    found = path(Leap(SOLUTION - 1.0), [usual])
    assert (found.x[0] == 9.0).all()
    assert torch.allclose(found.x[1:], found.fx[:-1])
    within = path(Leap(SOLUTION - 1.0), [[u / (0.99 * MARGIN) for u in usual]])
    assert torch.equal(within.x, found.x), "within the margin"
    beyond = path(Leap(SOLUTION - 1.0), [[u / (1.01 * MARGIN) for u in usual]])
    assert (beyond.x[0] == 9.0).all()
    assert (beyond.x[1] == 0).all(), "the cold start, that was not evaluated yet"
    assert torch.allclose(beyond.x[2:], beyond.fx[1:-1])


def test_what_is_usual_is_usual_evaluation_by_evaluation() -> None:
    size = 0.1 * 2**0.5
    found = path(Leap(SOLUTION - 1.0), [[size, 0.9 * size / 3, 1.0]])
    assert torch.allclose(found.x[1], found.fx[0])
    assert (found.x[2] == 0).all(), "the second residual was not"
    pushed = path(Leap(SOLUTION - 1.0, push=0.5), [[size, size, size]])
    assert torch.allclose(pushed.x[1], pushed.fx[0] + 0.5)
    assert torch.allclose(pushed.x[2], pushed.fx[1] + 0.5)
    assert torch.allclose(pushed.x[3], pushed.fx[2]), "two learned steps"


def test_progress_must_be_usual_too() -> None:
    """Small residuals that fall more slowly than those of any instance of the calibration."""
    quick, slow = [[30.0, 10.0, 5.0], [3.0, 1.4, 0.7]], [[30.0, 10.0, 5.0], [3.0, 2.8, 2.6]]
    found = path(Leap(SOLUTION - 1.0), quick)
    assert torch.allclose(found.x[1], found.fx[0])
    assert (found.x[2] == 0).all()
    assert torch.allclose(path(Leap(SOLUTION - 1.0), slow).x[2], found.fx[1])


def test_instances_are_sent_back_one_by_one() -> None:
    size = 0.1 * 2**0.5
    b = torch.tensor([[1.0, 1.0], [3.0, 3.0], [1.0, 1.0]], dtype=torch.float64)  # the second is another problem
    guarded = Safeguarded(Leap(SOLUTION - 1.0))
    guarded.calibrate(torch.full((3, 1), size, dtype=torch.float64))
    found = fp.unroll(MAP, PROBLEM._replace(b=b), guarded, steps=5)
    assert found.x[1, :, 0].tolist() == pytest.approx([9.1, 0.0, 9.1])
    mapped = torch.func.vmap(
        lambda b: fp.unroll(MAP, PROBLEM._replace(b=b[None]), guarded, steps=5).x[:, 0], out_dims=1
    )
    assert torch.allclose(mapped(b), found.x, rtol=1e-12), "also where nobody can look"


@pytest.mark.parametrize("learning_rate", [1e-2, 1e-30], ids=["learning", "untrained"])
def test_training_calibrates(learning_rate: float) -> None:
    """The largest residuals of the unguarded accelerator, on the validation instances, from the best weights."""
    family = OneMatrix()
    guarded: Any = Safeguarded(fp.accelerators.create("gru", hidden=4, steps=3)).bind(family.map.signature)
    assert (guarded.usual < 0).all()
    trained: Any = train(
        family, guarded, **{**SMALL, "updates": 4, "validate_every": 2, "learning_rate": learning_rate}
    )
    problem = family.sample(4, generator=generator(0, "validation"))
    run = roll(Iteration(family.map, family.map.setup(problem), trained.inner), 4)
    sizes = torch.linalg.vector_norm(run.fx - run.x, dim=2).detach()
    assert torch.allclose(trained.usual[0], sizes.amax(1), rtol=1e-6)
    assert torch.allclose(trained.usual[1], (sizes / sizes[0]).amax(1), rtol=1e-6)


@pytest.mark.parametrize("size", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("name", ["gru", "coordinate-gru", "mixing", "warm-start"])
def test_arbitrary_weights_cost_little(name: str, size: float) -> None:
    """Two evaluations more than the base, and what the account allows."""
    family = OneMatrix()
    problem = family.sample(20, generator=torch.Generator().manual_seed(0))
    guarded: Any = scrambled(Safeguarded(fp.accelerators.create(name)).bind(family.map.signature), size=size)
    base = "anderson-2" if name == "mixing" else "picard"
    solution = fp.solve(family.map, problem, guarded, tolerance=1e-8)
    plain = fp.solve(family.map, problem, base, tolerance=1e-8)
    assert solution.converged.all()
    assert (solution.evaluations <= 1.1 * plain.evaluations + 8).all()
