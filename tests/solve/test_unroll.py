"""Unrolling in pieces: windows, checkpoints and cut gradients give the numbers of one piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.solve.loop import Iteration, roll
from fixedpoint.tensors import pytrees
from maps.affine import Affine, AffineProblem, RandomAffine
from maps.elastic_net import RandomElasticNet
from maps.scs import SCS
from tests.maps.scs.programs import batch

METHODS = ["picard", "anderson-1", "anderson-2", "momentum", "safeguarded", "gru", "coordinate-gru", "mixing"]


def taught(name: str, map: fp.FixedPointMap) -> Any:
    """An accelerator by name, bound; a learned one with arbitrary weights, so that it is not its base."""
    made: Any = fp.accelerators.create(name).bind(map.signature)
    if isinstance(made, torch.nn.Module):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in made.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return made


def begin(name: str, batch: int = 3) -> Iteration:
    family = RandomElasticNet(5, step=1.0)
    problem = family.sample(batch, generator=torch.Generator().manual_seed(0))
    return Iteration(family.map, family.map.setup(problem), taught(name, family.map))


def same(one: fp.Trajectory, two: fp.Trajectory) -> bool:
    pairs = zip(pytrees.tensors(one).values(), pytrees.tensors(two).values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", METHODS)
def test_two_halves_are_the_whole(name: str) -> None:
    iteration = begin(name)
    first = roll(iteration, 4, proceed=True)
    second = roll(iteration, 5)
    family = RandomElasticNet(5, step=1.0)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    whole = fp.unroll(family.map, problem, taught(name, family.map), steps=9)
    assert same(pytrees.transform(lambda a, b: torch.cat([a, b]), first, second), whole)
    assert whole.x.shape == (9, 3, 5)
    assert not torch.equal(whole.x[7], whole.x[8])


def test_halves_of_a_map_with_by_products() -> None:
    many = batch("SOCP", range(3))
    map = SCS.of(many, scale=1.0)
    iteration = Iteration(map, map.setup(many), taught("anderson-2", map))
    parts = roll(iteration, 3, proceed=True), roll(iteration, 3)
    whole = fp.unroll(map, many, "anderson-2", steps=6)
    assert same(pytrees.transform(lambda a, b: torch.cat([a, b]), *parts), whole)
    assert whole.output.y.shape == (6, 3, map.m)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_where_it_is_left(checkpoint: bool) -> None:
    iteration = begin("picard")
    path = roll(iteration, 4, checkpoint=checkpoint)
    assert torch.equal(iteration.x, path.x[-1]), "at the last point evaluated"
    path = roll(iteration, 2, proceed=True, checkpoint=checkpoint)
    assert torch.equal(iteration.x, path.fx[-1]), "or one beyond it"


@pytest.mark.parametrize("name", [n for n in METHODS if n != "picard"])
def test_checkpoints_change_neither_values_nor_gradients(name: str) -> None:
    found = []
    for checkpoint in (False, True):
        iteration = begin(name)
        iteration.x.requires_grad_()
        start = iteration.x
        path = roll(iteration, 6, checkpoint=checkpoint)
        loss = path.fx.square().sum() + path.residual.sum() + path.output.sum()
        wanted = [
            start,
            *(iteration.accelerator.parameters() if isinstance(iteration.accelerator, torch.nn.Module) else []),
        ]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        found.append((path, [g for g in gradients if g is not None]))
    (plain, expected), (kept, gradients) = found
    assert same(plain, kept)
    assert len(expected) == len(gradients) >= 1
    for a, b in zip(expected, gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
    assert expected[0].abs().max() > 0.1


class Counting(Affine):
    """Counts its evaluations."""

    calls = 0

    def forward(self, x: Tensor, context: Any) -> Tensor:
        self.calls += 1
        return super().forward(x, context)


def test_checkpoints_compute_every_round_again() -> None:
    """Which is what they are for: nothing is kept."""
    problem = RandomAffine(3).sample(2, generator=torch.Generator().manual_seed(0))
    for checkpoint in (False, True):
        map = Counting(3)
        iteration = Iteration(map, map.setup(problem), fp.accelerators.create("anderson-2"))
        iteration.x = iteration.x.clone().requires_grad_()
        path = roll(iteration, 5, checkpoint=checkpoint)
        assert map.calls == 5
        path.residual.sum().backward()
        assert map.calls == (10 if checkpoint else 5)


@pytest.mark.parametrize("name", METHODS)
def test_detaching_cuts_the_gradient(name: str) -> None:
    iteration = begin(name)
    start = iteration.x = iteration.x.clone().requires_grad_()
    roll(iteration, 3, proceed=True)
    x, state = iteration.x, pytrees.tensors(iteration.state)
    assert x.requires_grad
    iteration.detach()
    assert torch.equal(iteration.x, x)
    after = pytrees.tensors(iteration.state)
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert not any(t.requires_grad for t in [iteration.x, *after.values()])
    here = iteration.x.requires_grad_()
    path = roll(iteration, 3)
    assert torch.autograd.grad(path.residual.sum(), [here], retain_graph=True)[0].abs().max() > 1e-3
    assert torch.autograd.grad(path.residual.sum(), [start], allow_unused=True) == (None,)


def test_the_gradient_of_a_window_is_that_of_its_own_steps() -> None:
    """f(x) = A x + b, cut after two of four evaluations: d fx_4 / db = I + A, not I + A + A^2 + A^3."""
    A = torch.tensor([[0.5, 0.2], [0.0, 0.3]], dtype=torch.float64)
    b = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    map = Affine(2)
    iteration = Iteration(map, map.setup(AffineProblem(A, b)), fp.accelerators.create("picard"))
    roll(iteration, 2, proceed=True)
    iteration.detach()
    fx = roll(iteration, 2).fx[-1, 0]
    jacobian = torch.stack([torch.autograd.grad(fx[i], b, retain_graph=True)[0][0] for i in range(2)])
    assert torch.allclose(jacobian, torch.eye(2, dtype=torch.float64) + A, rtol=1e-12)
