"""The safeguard: helps where the inner accelerator helps, and cannot be made to lose."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from accelerators import AndersonII, Picard, Safeguarded
from maps.affine import RandomAffine
from maps.elastic_net import ElasticNetProblem, RandomElasticNet


class Nothing(NamedTuple):
    pass


class Adversary(fp.Accelerator):
    """Proposes what it is told to."""

    uses_features = False

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Nothing]:
        return torch.full_like(x0, torch.nan) if self.kind == "nan start" else x0, Nothing()

    def step(self, at: fp.Evaluation, state: Nothing) -> tuple[Tensor, Nothing]:
        proposals = {
            "nan": torch.full_like(at.x, torch.nan),
            "nan start": torch.full_like(at.x, torch.nan),
            "inf": torch.full_like(at.x, torch.inf),
            "huge": 1e30 * torch.ones_like(at.x),
            "constant": torch.ones_like(at.x),
            "back to zero": torch.zeros_like(at.x),
            "never moves": at.x,
            "backwards": at.x - at.residual,
            "too far": at.x + 3 * at.residual,
            "oscillates": at.x - 2 * at.residual,
        }
        return proposals[self.kind], state


KINDS = [
    "nan",
    "nan start",
    "inf",
    "huge",
    "constant",
    "back to zero",
    "never moves",
    "backwards",
    "too far",
    "oscillates",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [RandomAffine(6, 0.9), RandomElasticNet(6, step=1.0)], ids=["affine", "elastic-net"])
def test_an_adversary_cannot_stop_it(kind: str, family: fp.ProblemFamily) -> None:
    problem = family.sample(8, generator=torch.Generator().manual_seed(0))
    if isinstance(problem, ElasticNetProblem):  # well-conditioned, so that the plain map gets there soon
        problem = problem._replace(A=problem.A + 5 * torch.eye(6, dtype=torch.float64))
    options: Any = {"tolerance": 1e-8, "max_evaluations": 2000}
    plain = fp.solve(family.map, problem, Picard(), **options)
    guarded = fp.solve(family.map, problem, Safeguarded(Adversary(kind)), **options)
    assert plain.converged.all()
    assert guarded.converged.all()
    assert torch.isfinite(guarded.x).all()
    assert (guarded.evaluations <= 1.2 * plain.evaluations + 7).all(), "allowance, and a tenth of the rest"


def test_it_does_not_stand_in_the_way() -> None:
    family = RandomAffine(10)
    problem = family.sample(20, generator=torch.Generator().manual_seed(1))
    bare = fp.solve(family.map, problem, AndersonII(), tolerance=1e-9)
    guarded = fp.solve(family.map, problem, Safeguarded(AndersonII()), tolerance=1e-9)
    assert guarded.converged.all()
    assert guarded.evaluations.double().median() <= bare.evaluations.double().median() + 2


def test_inner_by_name() -> None:
    assert Safeguarded("anderson-1", memory=3).inner.memory == 3
    with pytest.raises(ValueError, match="memory"):
        Safeguarded(Picard(), memory=3)
    with pytest.raises(TypeError, match="inner"):
        Safeguarded(3)  # type: ignore[arg-type]


def test_in_training_it_follows_every_proposal() -> None:
    """So that all of them get a gradient; as made, it does not."""
    family = RandomAffine(6, 0.9)
    problem = family.sample(4, generator=torch.Generator().manual_seed(0))
    guarded = Safeguarded(Adversary("too far"))
    assert not guarded.training
    bare = fp.unroll(family.map, problem, Adversary("too far"), steps=30)
    watched = fp.unroll(family.map, problem, guarded, steps=30)
    assert torch.equal(fp.unroll(family.map, problem, guarded.train(), steps=30).x, bare.x)
    assert torch.equal(fp.unroll(family.map, problem, guarded.eval(), steps=30).x, watched.x)
    assert not torch.equal(watched.x, bare.x)
    assert (watched.residual[-1] < bare.residual[-1]).any()


def test_the_weights_inside_are_its_own() -> None:
    signature = RandomElasticNet(5).map.signature
    plan = Safeguarded("coordinate-gru", hidden=3, steps=2)
    assert plan.signature is None
    guarded: Any = plan.bind(signature)
    assert guarded.signature == signature
    assert guarded.bind(signature) is guarded
    inner = dict(guarded.inner.state_dict())
    assert {name: t for name, t in guarded.state_dict().items() if name.startswith("inner.")}.keys() == {
        f"inner.{name}" for name in inner
    }
    assert list(guarded.parameters()) == list(guarded.inner.parameters()) != []
    assert guarded.train().inner.training
    assert not guarded.eval().inner.training
    plain: Any = Safeguarded("anderson-2").bind(signature)
    assert plain.state_dict() == {}
    with pytest.raises(ValueError, match="built for another map"):
        guarded.bind(RandomElasticNet(6).map.signature)


@pytest.mark.parametrize("option", [{"allowance": 0.0}, {"share": 1.0}, {"growth": 1.0}])
def test_bad_settings(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        Safeguarded("picard", **option)  # type: ignore[arg-type]


def test_the_account_is_kept_in_the_map_s_metric() -> None:
    """A step that lowers the residual in the metric but raises it in the Euclidean norm is an improvement."""
    metric = torch.tensor([[1e4, 1.0]], dtype=torch.float64)
    x0 = torch.zeros(1, 2, dtype=torch.float64)
    guard = Safeguarded(Picard())
    _, state = guard.init(x0, None, metric)
    first = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    _, state = guard.step(fp.Evaluation(x0, x0 + first, first), state)
    second = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    _, after = guard.step(fp.Evaluation(x0, x0 + second, second), state)
    assert float(after.best) == 2.0
    assert float(after.budget) > float(state.budget)
    third = torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # 100 in the metric: far beyond growth * best
    following, _ = guard.step(fp.Evaluation(x0, x0 + third, third), after)
    assert torch.equal(following, x0 + second), "back to f at the best point"
