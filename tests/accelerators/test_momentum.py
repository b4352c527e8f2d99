"""Momentum: FISTA's sequence until a restart, restarts per instance."""

from __future__ import annotations

import torch

import fixedpoint as fp
from accelerators import Momentum
from maps.elastic_net import RandomElasticNet


def test_first_steps_are_fista_s() -> None:
    family = RandomElasticNet(10, step=1.0)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    trajectory = fp.unroll(family.map, problem, Momentum(), steps=6)
    t, y, previous = 1.0, trajectory.x[0], trajectory.x[0]
    size = torch.full((3,), torch.inf, dtype=torch.float64)
    context = family.map.setup(problem)
    for k in range(6):
        assert torch.allclose(trajectory.x[k], y, rtol=1e-10, atol=1e-12), k
        following = family.map.forward(y, context)
        residual = following - y
        if (residual * (following - previous)).sum(1).min() < 0 or (residual.norm(dim=1) > size).any():
            break
        size = residual.norm(dim=1)
        t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
        y = following + (t - 1) / t_next * (following - previous)
        t, previous = t_next, following
    assert k >= 3


def test_it_helps_and_restarts() -> None:
    family = RandomElasticNet(10, step=1.0)
    problem = family.sample(10, generator=torch.Generator().manual_seed(0))
    plain = fp.solve(family.map, problem, tolerance=1e-4, max_evaluations=5000)
    fast = fp.solve(family.map, problem, "momentum", tolerance=1e-4, max_evaluations=5000)
    assert fast.converged.all()
    assert (plain.evaluations < 5000).any()
    assert fast.evaluations.double().median() < 0.5 * plain.evaluations.double().median()


def test_a_restart_is_the_instance_s_own() -> None:
    method = Momentum()
    x0 = torch.zeros(2, 2)
    _, state = method.init(x0, None)
    residual = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    _, state = method.step(fp.Evaluation(x0, x0 + residual, residual), state)
    here = torch.tensor([[1.5, 0.0], [1.5, 0.0]])
    residual = torch.tensor([[0.5, 0.0], [-0.3, 0.0]])
    following, state = method.step(fp.Evaluation(here, here + residual, residual), state)
    assert following[0, 0] > here[0, 0] + 0.5, "keeps its momentum"
    assert following[1, 0] == here[1, 0] - 0.3, "restarted: a plain step"


def test_long_steps_do_not_make_it_diverge() -> None:
    family = RandomElasticNet(10, step=1.8)
    problem = family.sample(10, generator=torch.Generator().manual_seed(0))
    trajectory = fp.unroll(family.map, problem, Momentum(), steps=300)
    assert torch.isfinite(trajectory.residual).all()
    assert (trajectory.residual[-1] < 0.1 * trajectory.residual[0]).all()
