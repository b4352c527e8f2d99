"""Learned momentum: the plain iteration without weights, its formula with them, the plain iteration afterwards."""

from __future__ import annotations

import pytest
import torch

import fixedpoint as fp
from accelerators.neural import LearnedMomentum
from maps.affine import Affine, AffineProblem
from maps.elastic_net import RandomElasticNet
from maps.scs import SCS, solve
from tests.accelerators.learners import FAMILY, evaluations, problems, scrambled
from tests.maps.scs.programs import batch as programs


def made(map: fp.FixedPointMap = FAMILY.map, **options: object) -> LearnedMomentum:
    return LearnedMomentum(**{"steps": 4, **options}).bind(map.signature)  # type: ignore[arg-type]


def test_untrained_it_is_the_plain_iteration_bit_for_bit() -> None:
    many = programs("QP", range(3))
    for map, problem in ((FAMILY.map, problems()), (SCS.of(many), many)):
        ours = fp.unroll(map, problem, made(map), steps=8)
        assert torch.equal(ours.x, fp.unroll(map, problem, "picard", steps=8).x)


@pytest.mark.parametrize("coordinates", [True, False])
def test_each_step_has_a_gain_and_a_push_of_its_own_then_none(coordinates: bool) -> None:
    method = scrambled(made(coordinates=coordinates))
    path = fp.unroll(FAMILY.map, problems(), method, steps=8)
    previous = path.x[0]
    for k in range(7):
        x, fx = path.x[k], path.fx[k]
        expected = fx
        if k < 4:
            expected = fx + method.gain[k].double() * (fx - x) + method.push[k].double() * (fx - previous)
        assert torch.allclose(path.x[k + 1], expected, rtol=1e-12, atol=1e-12), k
        previous = fx


def test_instances_at_different_steps_do_not_mix() -> None:
    method = scrambled(made())
    first, second = evaluations(3, 2)
    _, state = method.step(first, method.init(first.x, None)[1])
    late = state._replace(seen=torch.tensor([1, 3, 9]))
    found, after = method.step(second, late)
    for row, seen in enumerate((1, 3, 9)):
        alone = fp.Evaluation(*(t[row : row + 1] for t in second))
        here = type(state)(state.previous[row : row + 1], torch.tensor([seen]))
        assert torch.equal(found[row : row + 1], method.step(alone, here)[0])
    assert torch.equal(found[2], second.fx[2])
    assert after.seen.tolist() == [2, 4, 10]


def test_sent_back_to_the_cold_start_it_is_plain() -> None:
    method = scrambled(made())
    (at,) = evaluations(3, 1)
    assert torch.equal(method.step(at, method.restart(at.x))[0], at.fx)


def test_one_number_for_all_coordinates_serves_every_size() -> None:
    small, large = RandomElasticNet(5, step=1.0), RandomElasticNet(8, step=1.0)
    problem = large.sample(2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="built for another map"):
        fp.unroll(large.map, problem, made(small.map), steps=3)
    assert made(small.map, coordinates=False).size_free


def test_cone_programs_of_other_sizes_are_served_by_the_conic_front_door() -> None:
    small, large = (fp.families.create("lasso", variables=count, samples=2 * count) for count in (5, 8))
    method = made(small.map, coordinates=False)
    drawn = large.sample(2, generator=torch.Generator().manual_seed(0))
    assert bool(solve(drawn, method, adaptive_scale=False).converged.all())
    with pytest.raises(ValueError, match="scale: 2"):
        solve(drawn, method, adaptive_scale=False, scale=2.0)


def test_two_steps_that_solve_an_affine_map_are_found_by_gradient() -> None:
    """On x <- x/2 + b a gain of 1 is the solution at once."""
    map, b = Affine(2), torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = AffineProblem(0.5 * torch.eye(2, dtype=torch.float64), b)
    method = made(map, steps=1)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        path = fp.unroll(map, problem, method, steps=2)
        (path.fx[1] - path.x[1]).square().sum().backward()
        optimizer.step()
    gain = method.gain[0] + method.push[0]  # f(x) - previous is f(x) - x at the first evaluation
    assert torch.allclose(gain, torch.ones(2), atol=1e-2)


def test_on_a_homogeneous_map_the_length_of_the_start_has_no_say() -> None:
    many = programs("QP", range(3))
    map = SCS.of(many)
    method, start = scrambled(made(map), size=0.1), map.initial(map.setup(many))
    one, seven = (fp.unroll(map, many, method, steps=6, start=factor * start) for factor in (1.0, 7.0))
    torch.testing.assert_close(seven.fx[-1], one.fx[-1], rtol=1e-9, atol=1e-9)


def test_as_a_later_part_it_begins_where_its_turn_begins() -> None:
    map = Affine(1)
    problem = AffineProblem(torch.tensor([[0.5]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    method = made(map, steps=1)
    with torch.no_grad():
        method.push.fill_(1.0)  # at its first evaluation: x+ = f(x) + f(x) - x
    parts = fp.accelerators.create("schedule", parts=["picard", method, "picard"], steps=[3, 1])
    path = fp.unroll(map, problem, parts, steps=5, start=torch.full((1, 1), 8.0, dtype=torch.float64))
    assert path.x[:, 0, 0].tolist() == [8.0, 4.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("steps", 2.5), ("coordinates", 1)])
def test_bad_arguments_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        LearnedMomentum(**{name: value})  # type: ignore[arg-type]
