"""First this accelerator, then that: whose turn it is, what each of them sees, and what is remembered."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import fixedpoint as fp
from accelerators import AndersonII, Momentum, Picard, Schedule
from fixedpoint.tensors import pytrees
from maps.affine import Affine, RandomAffine
from maps.elastic_net import RandomElasticNet


class Count(NamedTuple):
    seen: Tensor


class Push(fp.Accelerator):
    """x+ = f(x) + push, from the start x0 + push; counts what it sees, and remembers what it was given."""

    def __init__(self, push: float, steps: int | None = None, uses_features: bool = False) -> None:
        self.push, self.uses_features = push, uses_features
        if steps is not None:
            self.steps = steps

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Count]:
        self.features, self.metric = features, metric
        return x0 + self.push, Count(torch.zeros_like(x0[:, :1]))

    def step(self, at: fp.Evaluation, state: Count) -> tuple[Tensor, Count]:
        return at.fx + self.push, Count(state.seen + 1)


class Watching(Push):
    """The same, and it wants to see everything."""

    learns_from_others = True


def affine(size: int = 4, batch: int = 3) -> Any:
    return RandomAffine(size).sample(batch, generator=torch.Generator().manual_seed(0))


def evaluation(batch: int = 2, size: int = 3) -> fp.Evaluation:
    x = torch.ones(batch, size, dtype=torch.float64)
    return fp.Evaluation(x, 2 * x, x)


def test_every_part_has_its_turn() -> None:
    schedule = Schedule([Push(1.0), Push(2.0), Push(3.0), Push(4.0)], steps=[2, 0, 3])
    path = fp.unroll(Affine(4), affine(), schedule, steps=9)
    pushes = (path.x[1:] - path.fx[:-1]).mean((1, 2))
    expected = torch.tensor([1, 1, 3, 3, 3, 4, 4, 4], dtype=torch.float64)
    assert torch.allclose(pushes, expected)


def test_the_start_goes_through_all_of_them() -> None:
    x0 = torch.zeros(2, 3, dtype=torch.float64)
    x, state = Schedule([Push(1.0), Push(10.0)], steps=[1]).init(x0, None)
    assert torch.equal(x, x0 + 11)
    assert state.seen.tolist() == [0, 0]


def test_what_each_part_sees() -> None:
    """One whose turn it is not sees nothing, unless it is observant; when its turn is over it is left alone."""
    schedule = Schedule([Push(1.0), Push(2.0), Watching(3.0), Watching(4.0)], steps=[2, 1, 2])
    _, state = schedule.init(torch.zeros(2, 3, dtype=torch.float64), None)
    counts = []
    for _ in range(7):
        _, state = schedule.step(evaluation(), state)
        counts.append([int(part.seen[0]) for part in state.parts])
    first, second, third, fourth = (list(column) for column in zip(*counts, strict=True))
    assert first == [1, 2, 2, 2, 2, 2, 2]
    assert second == [0, 0, 1, 1, 1, 1, 1]
    assert third == [1, 2, 3, 4, 5, 5, 5], "from the start, until its turn is over"
    assert fourth == [1, 2, 3, 4, 5, 6, 7]
    assert state.seen.tolist() == [7, 7]


def test_anderson_brings_its_history_along() -> None:
    problem = affine(6)
    plain = fp.unroll(Affine(6), problem, None, steps=7)
    path = fp.unroll(Affine(6), problem, Schedule(["picard", "anderson-2"], steps=[4]), steps=7)
    assert torch.equal(path.x[:5], plain.x[:5])
    anderson = AndersonII()
    _, state = anderson.init(plain.x[0], None)
    for k in range(5):
        proposal, state = anderson.step(fp.Evaluation(plain.x[k], plain.fx[k], plain.fx[k] - plain.x[k]), state)
    assert torch.allclose(path.x[5], proposal, rtol=1e-12, atol=1e-12), "four secants at its first step"
    assert (path.x[5] - plain.x[5]).abs().max() > 1e-2, "not a plain step"


def test_instances_may_be_at_different_places() -> None:
    schedule = Schedule([Push(1.0), Push(2.0)], steps=[3])
    _, state = schedule.init(torch.zeros(3, 3, dtype=torch.float64), None)
    state = state._replace(seen=torch.tensor([0, 2, 3]))
    x, state = schedule.step(evaluation(3), state)
    assert (x - 2).mean(1).tolist() == [1, 1, 2]
    assert state.parts[0].seen[:, 0].tolist() == [1, 1, 0]
    assert state.parts[1].seen[:, 0].tolist() == [0, 0, 1]
    mapped = torch.func.vmap(lambda at, state: schedule.step(at, state))
    batch = pytrees.transform(lambda t: t[:, None], (evaluation(3), state._replace(seen=torch.tensor([0, 2, 3]))))
    x, stepped = mapped(*batch)
    assert (x[:, 0] - 2).mean(1).tolist() == [1, 1, 2], "and under vmap, where nobody can look"
    assert stepped.parts[0].seen[:, 0, 0].tolist() == [2, 2, 0]


def test_by_default_as_long_as_the_parts_say() -> None:
    signature = RandomElasticNet(4).map.signature
    gru = fp.accelerators.create("gru", hidden=3, steps=5).bind(signature)
    assert Schedule([Push(1.0, steps=7), "warm-start", gru, "anderson-2"]).steps == [7, 0, 5]
    assert Schedule([Push(1.0)]).steps == []
    assert Schedule().steps == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"parts": []}, ValueError, "parts: expected a list"),
        ({"parts": "picard"}, ValueError, "parts: expected a list"),
        ({"parts": ["picard", 3], "steps": [1]}, TypeError, "parts: expected accelerators"),
        ({"parts": ["picard", "anderson-2"]}, ValueError, r"steps: .*each of the 1 part.*got \[None\]"),
        ({"parts": ["picard", "anderson-2"], "steps": []}, ValueError, "steps: expected a whole number"),
        ({"parts": ["picard", "anderson-2"], "steps": [1, 2]}, ValueError, "steps"),
        ({"parts": ["picard", "anderson-2"], "steps": [-1]}, ValueError, "steps"),
        ({"parts": ["picard", "anderson-2"], "steps": [1.0]}, ValueError, "steps"),
        ({"parts": ["picard", "anderson-2"], "steps": [True]}, ValueError, "steps"),
        ({"parts": ["picard", "andersen-2"], "steps": [1]}, LookupError, "did you mean 'anderson-2'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Schedule(**arguments)


def test_features_go_to_those_who_use_them() -> None:
    blind, seeing = Push(1.0), Push(2.0, uses_features=True)
    assert not Schedule([blind, "picard"], steps=[1]).uses_features
    schedule = Schedule([blind, seeing], steps=[1])
    assert schedule.uses_features
    features, metric = torch.ones(2, 5), torch.full((2, 3), 2.0)
    schedule.init(torch.zeros(2, 3), features, metric)
    assert blind.features is None
    assert seeing.features is features
    assert blind.metric is seeing.metric is metric


def test_binding_builds_the_learned_parts() -> None:
    signature = RandomElasticNet(4).map.signature
    plan = Schedule(["warm-start", fp.accelerators.create("gru", hidden=3, steps=5), "anderson-2"], steps=[0, 2])
    assert plan.signature is None
    assert not plan.state_dict()
    bound = plan.bind(signature)
    assert isinstance(bound, Schedule)
    assert bound is not plan
    assert bound.steps == [0, 2]
    assert bound.signature == signature
    assert [type(part).__name__ for part in bound.parts] == ["WarmStart", "GRU", "AndersonII"]
    assert {name.split(".")[0] for name in bound.state_dict()} == {"part0", "part1"}
    assert len(list(bound.parameters())) > 5
    assert bound.bind(signature) is bound
    plain = Schedule([Picard(), Momentum()], steps=[2])
    assert plain.bind(signature) is plain
    with pytest.raises(ValueError, match=r"WarmStart was built for another map .*size"):
        bound.bind(RandomElasticNet(3).map.signature)


def test_it_is_made_for_use_and_passes_its_mode_on() -> None:
    schedule = Schedule(["warm-start", "anderson-2"]).bind(RandomElasticNet(4).map.signature)
    assert isinstance(schedule, nn.Module)
    assert not any(module.training for module in schedule.modules())
    schedule.train()
    assert all(module.training for module in schedule.modules())


def test_a_warm_start_before_anderson_starts_anderson() -> None:
    """The secants are those of the warm-started iteration, from its first evaluation."""
    family = RandomElasticNet(5)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    start = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    class Given(Push):
        def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Count]:
            return start, super().init(x0, features, metric)[1]

    path = fp.unroll(family.map, problem, Schedule([Given(0.0, steps=0), "anderson-2"]), steps=8)
    expected = fp.unroll(family.map, problem, "anderson-2", steps=8, start=start)
    assert torch.equal(path.x[0], start)
    assert torch.allclose(path.x, expected.x, rtol=1e-12, atol=1e-12)


def test_how_long_learned_parts_have_a_say() -> None:
    gru = fp.accelerators.create("gru", hidden=3, steps=5)
    assert Schedule([gru, "anderson-2"]).learned_steps == 5
    assert Schedule(["warm-start", "anderson-2"]).learned_steps == 0
    assert Schedule(["warm-start", gru, "anderson-2"]).learned_steps == 5
    assert Schedule([gru, "anderson-2"], steps=[3]).learned_steps == 3
    assert Schedule(["picard", gru], steps=[4]).learned_steps == 9
    assert Schedule(["picard", gru, "anderson-2", "picard"], steps=[1, 2, 3]).learned_steps == 3
    assert Schedule(["picard", "anderson-2"], steps=[4]).learned_steps is None


def test_from_a_cold_start_the_last_part_goes_on_alone() -> None:
    family = RandomElasticNet(5)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    schedule = Schedule([Push(1.0, steps=3), "anderson-2"]).bind(family.map.signature)
    x0 = torch.ones(3, 5, dtype=torch.float64)
    _, warm = schedule.init(x0, None)
    cold = schedule.restart(x0)
    assert [(t.shape, t.dtype) for t in pytrees.tensors(warm).values()] == [
        (t.shape, t.dtype) for t in pytrees.tensors(cold).values()
    ]
    expected = fp.unroll(family.map, problem, "anderson-2", steps=6, start=x0)
    x = x0
    for k in range(6):
        assert torch.allclose(x, expected.x[k], rtol=1e-12, atol=1e-12)
        x, cold = schedule.step(fp.Evaluation(x, expected.fx[k], expected.fx[k] - x), cold)
