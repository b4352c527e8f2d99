"""Losses against their formulas; none can be lowered by inflating the scale of a homogeneous map."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint import Trajectory
from fixedpoint.learning.losses import DEPENDS_ON_SCALE, LOSSES, LOST, NEEDS_SOLUTIONS, Scene
from maps.affine import AffineProblem
from maps.elastic_net import RandomElasticNet
from maps.scs import SCS, ConeProgram
from maps.scs.certify.kkt import kkt_error, kkt_merit
from maps.scs.family import ConicFamily
from tests.learning.toys import Alike
from tests.maps.scs.programs import batch

FLOOR = 1e-6


class Quadratics(ConicFamily):
    """Five quadratic programs, whatever is asked."""

    def __init__(self) -> None:
        self.programs = batch("QP", range(5))
        self.map = SCS.of(self.programs, scale=1.0)

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        return self.programs


family = Quadratics()
context = family.map.setup(family.programs)
n, m = family.map.n, family.map.m


def scene(solutions: Tensor | None = None) -> Scene:
    return Scene(family, family.programs, context, solutions, FLOOR)


def states(tau: float = 0.7) -> Tensor:
    """(2, 5, n + m + 1): two steps."""
    v = torch.randn(2, 5, n + m + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([v[:, :, :-1], torch.full_like(v[:, :, -1:], tau)], dim=2)


def path(x: Tensor) -> Trajectory:
    """What the loop would record at these states; nothing is retracted."""
    rounds = []
    for v in x:
        fx, inner = family.map.evaluate(v, context)
        at = fp.Evaluation(v, fx, fx - v)
        rounds.append((v, fx, family.map.assess(at, inner, context).residual, family.map.output(at, inner, context)))
    xs, fxs, residuals, outputs = zip(*rounds, strict=True)
    output = type(outputs[0])(*(torch.stack(part) for part in zip(*outputs, strict=True)))
    return Trajectory(torch.stack(xs), torch.stack(fxs), torch.stack(residuals), output)


def by_hand(v: Tensor) -> Tensor:
    """|| f(v)/tau_f - v/tau_v ||, the tau entries dropped."""
    f = torch.stack([family.map.forward(row, context) for row in v])
    return ((f / f[:, :, -1:] - v / v[:, :, -1:])[:, :, :-1] ** 2).sum(2).sqrt()


def test_the_residual_is_normalised_by_tau() -> None:
    v = states(5.0)
    assert (path(v).fx[:, :, -1] > 0).all()
    expected = by_hand(v)
    assert torch.allclose(LOSSES["residual"](path(v), scene()), expected, rtol=1e-12)
    assert torch.allclose(LOSSES["log-residual"](path(v), scene()), torch.log10(expected + FLOOR), rtol=1e-12)
    plain = torch.linalg.vector_norm(path(v).fx - v, dim=2)
    assert not torch.allclose(expected, plain, rtol=0.1), "not the residual of v itself"


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DEPENDS_ON_SCALE])
@pytest.mark.parametrize("factor", [1e-3, 0.5, 2.0, 1e3])
def test_the_scale_of_a_state_does_not_matter(name: str, factor: float) -> None:
    v = states(5.0)
    seen = scene(states()[0] if name in NEEDS_SOLUTIONS else None)
    loss = LOSSES[name](path(v), seen)
    assert loss.shape == (2, 5)
    assert torch.allclose(LOSSES[name](path(factor * v), seen), loss, rtol=1e-9)
    assert loss.std() > 1e-3


@pytest.mark.parametrize("name", DEPENDS_ON_SCALE)
@pytest.mark.parametrize("factor", [1e-3, 0.5, 2.0, 1e3])
def test_the_ablation_is_paid_by_the_scale_of_a_state(name: str, factor: float) -> None:
    v = states(5.0)
    loss = LOSSES[name](path(v), scene())
    assert torch.allclose(loss, torch.linalg.vector_norm(path(v).fx - v, dim=2), rtol=1e-12)
    assert torch.allclose(LOSSES[name](path(factor * v), scene()), factor * loss, rtol=1e-9)


def test_the_ablation_does_not_see_that_tau_vanishes() -> None:
    v = states(5.0)
    v[0, 2, -1] = 0.0
    assert float(LOSSES["raw-residual"](path(v), scene())[0, 2]) < float(LOSSES["residual"](path(v), scene())[0, 2])


def test_both_is_the_mean_of_residual_and_error() -> None:
    v = path(states(5.0))
    parts = [LOSSES[name](v, scene()) for name in ("log-residual", "log-error")]
    assert torch.allclose(LOSSES["log-both"](v, scene()), sum(parts) / 2, rtol=1e-12)
    assert not torch.allclose(*parts, rtol=0.1)


def test_the_scale_of_a_solution_does_not_matter() -> None:
    v = states(5.0)
    one, two = (LOSSES["solution"](path(v), scene(factor * states()[0])) for factor in (1.0, 7.0))
    assert torch.allclose(one, two, rtol=1e-9)


@pytest.mark.parametrize("name", ["residual", "log-residual", "solution"])
@pytest.mark.parametrize("tau", [0.0, 1e-20, -0.5])
def test_a_state_without_a_scale_is_lost_and_earns_nothing(name: str, tau: float) -> None:
    v = states(5.0)
    v[0, 2, -1] = tau
    v.requires_grad_()
    seen = scene(states(2.0)[1] if name in NEEDS_SOLUTIONS else None)
    loss = LOSSES[name](path(v), seen)
    assert float(loss[0, 2].detach()) == pytest.approx(math.log10(LOST) if name == "log-residual" else LOST)
    kept = torch.ones(2, 5, dtype=torch.bool)
    kept[0, 2] = False
    assert (loss[kept] < loss[0, 2]).all(), "worse than any other"
    (gradient,) = torch.autograd.grad(loss.sum(), v)
    assert torch.isfinite(gradient).all()
    assert (gradient[0, 2] == 0).all()
    assert (gradient[kept].abs().amax(1) > 0).all()


def test_a_smaller_tau_costs_more_and_is_pushed_up() -> None:
    losses, slopes = [], []
    for tau in (1.0, 1e-2, 1e-4):
        v = states(tau).requires_grad_()
        goal = scene(states(1.0)[0])
        loss = LOSSES["solution"](path(v), goal)[0]
        (gradient,) = torch.autograd.grad(loss.sum(), v)
        losses.append(loss.detach())
        slopes.append(gradient[0, :, -1])
    assert (losses[1] > losses[0]).all()
    assert (losses[2] > losses[1]).all()
    assert (slopes[1] < 0).all()
    assert (slopes[2] < 0).all()


def test_log_error_is_the_merit() -> None:
    v = path(states(5.0))
    loss = LOSSES["log-error"](v, scene())
    for k in range(2):
        output = type(v.output)(*(part[k] for part in v.output))
        expected = torch.log10(kkt_merit(family.programs, *output) + FLOOR)
        assert torch.allclose(loss[k], expected, rtol=1e-12)
        assert (loss[k] >= torch.log10(kkt_error(family.programs, *output)) - 1e-12).all()


def test_the_error_of_a_family_without_a_merit_is_its_residual() -> None:
    nets = RandomElasticNet(4)
    problem = nets.sample(3, generator=torch.Generator().manual_seed(0))
    seen = Scene(nets, problem, nets.map.setup(problem), None, FLOOR)
    trajectory = fp.unroll(nets.map, problem, None, steps=4)
    assert torch.equal(LOSSES["log-error"](trajectory, seen), torch.log10(trajectory.residual + FLOOR))
    plain = torch.linalg.vector_norm(trajectory.fx - trajectory.x, dim=2)
    assert torch.allclose(LOSSES["residual"](trajectory, seen), plain, rtol=1e-12)


def test_solution_is_the_relative_distance() -> None:
    goal = states(2.0)[1]
    seen = scene(goal)
    assert (LOSSES["solution"](path(goal[None]), seen) == 0).all()
    assert torch.allclose(LOSSES["solution"](path(3 * goal[None]), seen), torch.zeros(1, 5).double(), atol=1e-12)
    away = goal.clone()
    away[:, 0] += 2.0  # v / tau is off by 1 in one entry
    expected = 1 / torch.linalg.vector_norm(goal[:, :-1] / 2, dim=1)
    assert torch.allclose(LOSSES["solution"](path(away[None]), seen)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_at_a_solution(name: str) -> None:
    """On an affine problem whose fixed point is hit exactly: residual, distance and error are all 0 there."""
    alike = Alike()
    b = torch.tensor([[1.0, 2.0, -4.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    problem = AffineProblem(0.5 * torch.eye(3, dtype=torch.float64), b)
    x = (2 * b).requires_grad_()
    trajectory = fp.unroll(alike.map, problem, None, steps=2, start=x)
    assert (trajectory.residual == 0).all()
    loss = LOSSES[name](trajectory, Scene(alike, problem, alike.map.setup(problem), 2 * b, FLOOR))
    assert torch.allclose(loss, torch.full_like(loss, -6.0 if name.startswith("log") else 0.0))
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert (gradient == 0).all()
