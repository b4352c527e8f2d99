"""The learned metric: another R from one factorization, its derivative, and what it is good for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fixedpoint as fp
from maps.scs import SCS, ConeProgram, solve
from maps.scs.learn_metric import learn, reweighted

SETTINGS: dict[str, Any] = {"eliminate": True, "normalize": False, "scale": 2.0, "tau_factor": 100.0}


@pytest.fixture(scope="module")
def kalman() -> ConeProgram:
    """A few tracks, which share their matrices."""
    return fp.families.create("robust-kalman").sample(3, generator=torch.Generator().manual_seed(0))


def uneven(kalman: ConeProgram) -> torch.Tensor:
    """(k,) weights: of each nonnegative row its own, of each second-order block one."""
    generator = torch.Generator().manual_seed(1)
    own, blocks = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.5 for k in (100, 50))
    return torch.cat([own, blocks.repeat_interleave(3)])


def test_another_metric_is_that_of_a_map_with_its_weights(kalman: ConeProgram) -> None:
    weights = uneven(kalman)
    map, other = SCS.of(kalman, **SETTINGS), SCS.of(kalman, weights=weights.tolist(), **SETTINGS)
    context = reweighted(map, map.setup(kalman), weights / 2.0)
    expected = other.setup(kalman)
    for found, wanted in (
        (context.shared.response.kept, expected.shared.response.kept),
        (context.shared.response.free, expected.shared.response.free),
        (context.rows.g, expected.rows.g),
        (context.rows.curvature, expected.rows.curvature),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)
    x = map.initial(context)
    torch.testing.assert_close(map.forward(x, context), other.forward(x, expected), rtol=1e-7, atol=1e-7)


def test_its_derivative_is_that_of_central_differences(kalman: ConeProgram) -> None:
    map = SCS.of(kalman, **SETTINGS)
    context, direction = map.setup(kalman), uneven(kalman) - 1
    x = map.initial(context) + 0.1

    def moved(step: torch.Tensor) -> torch.Tensor:
        return map.forward(x, reweighted(map, context, uneven(kalman) / 2.0 + step * direction)).square().sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(moved(step), step)
    h = torch.tensor(1e-6, dtype=torch.float64)
    torch.testing.assert_close(slope, (moved(h) - moved(-h)) / (2 * h), rtol=1e-5, atol=1e-6)


def test_learning_shortens_the_plain_iteration() -> None:
    family = fp.families.create("robust-kalman", **SETTINGS)
    losses: list[float] = []
    plan: dict[str, Any] = {"instances": 16, "batch": 8, "steps": 20, "updates": 15, "learning_rate": 0.2}
    found = learn(family, report=lambda _, loss: losses.append(loss), **plan)
    assert losses[-1] < losses[0]
    held_out = family.sample(8, generator=torch.Generator().manual_seed(5))
    accuracy = {"eps_abs": 1e-4, "eps_rel": 1e-4, "adaptive_scale": False}
    before, after = (
        solve(held_out, "picard", **accuracy, **{**SETTINGS, **change}).evaluations.double().mean()
        for change in ({}, found._asdict())
    )
    assert after < 0.9 * before
    q = torch.tensor(found.weights)[100:].reshape(50, 3)
    assert bool((q == q[:, :1]).all()), "rows of a second-order block have one weight"


def test_what_cannot_be_learned_on_is_named() -> None:
    with pytest.raises(TypeError, match="family: expected one whose map is an SCS, got Affine"):
        learn(fp.families.create("affine"))
    with pytest.raises(ValueError, match="family: expected eliminate=True"):
        learn(fp.families.create("robust-kalman"))
    with pytest.raises(ValueError, match="family: expected batches that share A and P"):
        learn(fp.families.create("lasso", eliminate=True), instances=2)
