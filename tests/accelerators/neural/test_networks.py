"""What learned accelerators are made of: cells, standardisation, building, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fixedpoint as fp
from accelerators import Picard
from accelerators.neural.networks import MLP, GRUCell, LSTMCell, Standard, decades, direction, length
from fixedpoint import Signature
from fixedpoint.learning.learned import Learned
from maps.affine import RandomAffine
from maps.elastic_net import RandomElasticNet
from tests.accelerators.learners import (
    FAMILY,
    RECURRENT,
    SIZES,
    evaluations,
    examples,
    features,
    problems,
    scrambled,
    taught,
    untrained,
)

LEARNED = [*SIZES, "mean-start", "ridge-start", "nearest-start"]


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_lstm_cell_is_torch_s() -> None:
    """Ours has its gates in the order enter, forget, leave, new, one bias, and 1 more on forgetting."""
    ours = scrambled(LSTMCell(3, 4))
    theirs = nn.LSTMCell(3, 4)
    enter, forget, leave, new = ours.gates.weight.chunk(4)
    bias = torch.cat([torch.zeros(4), torch.ones(4), torch.zeros(8)]) + ours.gates.bias
    b_enter, b_forget, b_leave, b_new = bias.chunk(4)
    with torch.no_grad():
        weight = torch.cat([enter, forget, new, leave])
        theirs.weight_ih.copy_(weight[:, :3])
        theirs.weight_hh.copy_(weight[:, 3:])
        theirs.bias_ih.copy_(torch.cat([b_enter, b_forget, b_new, b_leave]))
        theirs.bias_hh.zero_()
    state, expected = vectors(5, 8), tuple(vectors(5, 8).chunk(2, 1))
    for k in range(4):
        z = 2 * vectors(5, 3, seed=k)
        state, expected = ours(z, state), theirs(z, expected)
        assert torch.allclose(state, torch.cat(expected, 1), rtol=1e-5, atol=1e-6)


def test_the_gru_cell_is_torch_s_under_vmap_too() -> None:
    ours, theirs = scrambled(GRUCell(3, 4)), scrambled(nn.GRUCell(3, 4))
    z, state = vectors(6, 2, 3), vectors(6, 2, 4, seed=1)
    expected = torch.stack([theirs(a, b) for a, b in zip(z, state, strict=True)])
    assert torch.equal(torch.stack([ours(a, b) for a, b in zip(z, state, strict=True)]), expected)
    assert torch.allclose(torch.func.vmap(ours)(z, state), expected, rtol=1e-5, atol=1e-6)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_standardised_inputs() -> None:
    standard = Standard(4)
    samples = torch.stack([3 + 2 * vectors(500), 1e6 * vectors(500, seed=1), torch.full((500,), 7.0), vectors(500)], 1)
    standard.fit(samples)
    t = standard(samples)
    assert torch.allclose(t[:, [0, 1, 3]].mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(t[:, [0, 1, 3]].std(0, correction=0)[:2], torch.ones(2), rtol=1e-4)
    assert (t[:, 2] == 0).all()
    far = standard(torch.tensor([[1e9, torch.nan, 7.0001, -torch.inf]]))
    assert far.tolist()[0][0] == 10
    assert far.tolist()[0][1] == 0
    assert abs(far.tolist()[0][2]) < 1, "a constant input does not explode where it is not constant"
    assert far.tolist()[0][3] == -10
    assert standard(samples.double()).dtype == torch.float32


def test_a_network_says_nothing_at_first() -> None:
    network = MLP([3, 8, 2])
    assert (network(vectors(5, 3)) == 0).all()
    assert [type(layer).__name__ for layer in network] == ["Linear", "SiLU", "Linear"]
    assert network[0].weight.std() > 0.1


def test_lengths_and_directions_at_zero() -> None:
    t = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    size = length(t)
    assert size.flatten().tolist() == [5, 0]
    assert direction(t, size).tolist() == [[0.6, 0.8], [0, 0]]
    (gradient,) = torch.autograd.grad(size.sum() + direction(t, size).sum(), t)
    assert torch.isfinite(gradient).all()
    assert (gradient[1] == 0).all()
    first = torch.tensor([[10.0], [0.0], [1.0], [1e300]], dtype=torch.float64)
    now = torch.tensor([[0.1], [1.0], [0.0], [1e-300]], dtype=torch.float64)
    assert torch.allclose(decades(now, first), torch.tensor([[-2.0], [0.0], [0.0], [-16.0]], dtype=torch.float64))


@pytest.mark.parametrize("name", LEARNED)
def test_building_follows_the_seed_and_leaves_the_random_state_alone(name: str) -> None:
    before = torch.get_rng_state()
    made = [fp.accelerators.create(name, **SIZES.get(name, {})).bind(FAMILY.map.signature).state_dict() for _ in "ab"]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])
    if name in SIZES:
        other = untrained(name, seed=1).state_dict()
        assert any(not torch.equal(made[0][key], other[key]) for key in other)


@pytest.mark.parametrize("name", LEARNED)
def test_a_plan_is_built_for_a_signature(name: str) -> None:
    plan = fp.accelerators.create(name, **SIZES.get(name, {}))
    assert plan.signature is None
    assert not plan.state_dict()
    bound = plan.bind(FAMILY.map.signature)
    assert bound.signature == FAMILY.map.signature
    assert bound.state_dict()
    assert isinstance(bound, Learned)
    assert not any(module.training for module in bound.modules())
    with pytest.raises(ValueError, match="built for another map"):
        bound.bind(RandomElasticNet(6).map.signature)
    with pytest.raises(ValueError, match=r"built for another map \(map: 'affine'"):
        fp.unroll(RandomAffine(5).map, RandomAffine(5).sample(2, generator=torch.Generator()), bound, steps=1)


@pytest.mark.parametrize("name", ["gru", "lstm", "warm-start", "mean-start", "ridge-start", "nearest-start"])
def test_features_of_another_width_are_refused(name: str) -> None:
    method = fp.accelerators.create(name, **SIZES.get(name, {})).bind(FAMILY.map.signature)
    assert method.uses_features
    x0 = torch.zeros(2, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="features: this accelerator was built for 12 of them, got 11"):
        method.init(x0, features(2)[:, :-1])
    with pytest.raises(ValueError, match="features: this accelerator was built for 12 of them, got none"):
        method.init(x0, None)
    x, _ = method.init(x0, features(2).float())
    assert x.dtype == torch.float64


def test_whose_features_are_looked_at() -> None:
    few, many = Signature(3, features=4096), Signature(3, features=4097)
    for name in ("gru", "lstm", "warm-start"):
        create = fp.accelerators.create
        options: dict[str, Any] = {"width": 2} if name == "warm-start" else {"hidden": 2}
        assert create(name, signature=few, **options).uses_features
        assert not create(name, signature=many, **options).uses_features
        assert not create(name, signature=few, context=False, **options).uses_features
        assert not create(name, signature=Signature(3), **options).uses_features
    for name in ("coordinate-gru", "mixing"):
        assert not untrained(name).uses_features


@pytest.mark.parametrize("name", RECURRENT)
def test_it_can_do_without_a_learned_start(name: str) -> None:
    x0 = vectors(3, 5).double()
    for start in (True, False):
        method = taught(name, start=start)
        x, _ = method.init(x0, features(3) if method.uses_features else None)
        assert torch.equal(x, x0) != start


class Ahead(Picard):
    """Starts a little further on."""

    def init(self, x0: torch.Tensor, features: Any, metric: Any = None) -> Any:
        return x0 + 10, ()


@pytest.mark.parametrize("name", RECURRENT)
def test_the_base_starts_where_the_learned_start_is(name: str) -> None:
    x0 = vectors(3, 5).double()
    plain, ahead = (taught(name, base=base) for base in ("picard", Ahead()))
    x, y = (method.init(x0, features(3) if method.uses_features else None)[0] for method in (plain, ahead))
    assert (x != x0).all()
    assert torch.equal(y, x + 10)


@pytest.mark.parametrize("name", RECURRENT)
def test_what_is_fitted_is_the_scale_of_points_and_residuals(name: str) -> None:
    method = untrained(name)
    seen = examples()
    method.fit(seen)
    x = seen.x.flatten(0, 1)
    assert torch.allclose(method.points.mean.double(), x.mean(0), rtol=1e-4, atol=1e-6)
    assert torch.allclose(method.points.scale.double(), x.std(0, correction=0), rtol=1e-4)
    residual = seen.residual.flatten(0, 1)
    unit = residual / residual.square().mean(1, keepdim=True).sqrt()
    spread = unit.square().mean(0).sqrt()
    assert torch.allclose(method.spread.double(), spread, rtol=2e-3)
    assert float(method.spread.square().mean()) == pytest.approx(1, rel=5e-3)


@pytest.mark.parametrize("name", ["gru", "lstm", "coordinate-gru"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden": 0}, ValueError, "hidden: expected a whole number"),
        ({"hidden": 2.0}, ValueError, "hidden"),
        ({"steps": 0}, ValueError, "steps: expected a whole number"),
        ({"steps": True}, ValueError, "steps"),
        ({"form": "cooked"}, ValueError, 'form: expected "scaled" or "raw"'),
        ({"base": 3}, TypeError, "base: expected an Accelerator"),
        ({"base": "andersen-2"}, LookupError, "did you mean 'anderson-2'"),
    ],
)
def test_bad_arguments(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fp.accelerators.create(name, **options)


def test_what_mixing_sees_does_not_depend_on_the_place_in_the_ring() -> None:
    """The same last five evaluations give the same answer, whatever came before and wherever they are kept."""
    method = taught("mixing", size=1.0)
    path = fp.unroll(FAMILY.map, problems(), "anderson-2", steps=11)
    ats = [fp.Evaluation(x, fx, fx - x) for x, fx in zip(path.x, path.fx, strict=True)]
    answers = []
    for begin in range(3):
        _, state = method.init(ats[0].x, None)
        for at in ats[begin:7]:
            x, state = method.step(at, state)
        answers.append(x)
    assert (answers[0] - ats[6].fx).abs().max() > 1e-3
    for answer in answers[1:]:
        assert torch.allclose(answer, answers[0], rtol=1e-4, atol=1e-5)


def test_mixing_s_bounds() -> None:
    """Factors on gamma and the relaxation stay between 1/2 and 3/2 whatever the network says."""
    method = taught("mixing", size=100.0, memory=1)
    first, second, third = evaluations(3, 3)
    _, state = method.init(first.x, None)
    x, state = method.step(first, state)
    assert torch.equal(x, first.fx), "there is nothing to mix yet"
    _, state = method.step(second, state)
    x, state = method.step(third, state)
    s, y = third.x - second.x, third.residual - second.residual
    gamma = (y * third.residual).sum(1) / (y * y).sum(1)
    for i in range(3):  # x+ = x - factor gamma s + beta (r - factor gamma y)
        columns = torch.stack([-gamma[i] * s[i], third.residual[i], -gamma[i] * y[i]], 1)
        factor, beta, both = torch.linalg.lstsq(columns, (x - third.x)[i][:, None]).solution[:, 0].tolist()
        assert both == pytest.approx(factor * beta, rel=1e-4)
        assert 0.499 < factor < 1.501
        assert 0.499 < beta < 1.501
        assert abs(factor - 1) > 0.1
