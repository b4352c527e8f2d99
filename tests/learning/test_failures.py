"""What training refuses before it starts, and how it stops when it must."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.experiments.evaluation import generator
from fixedpoint.learning.losses import LOSSES, Scene
from fixedpoint.learning.plan import Plan
from fixedpoint.learning.trainer import MOST_SKIPPED, batch_of
from fixedpoint.learning.training import Report, TrainingError, train
from maps.affine import Affine, RandomAffine
from maps.elastic_net import RandomElasticNet
from tests.learning.toys import SMALL, Alike, Factor
from tests.support import take_solutions_away


def network() -> fp.Accelerator:
    return fp.accelerators.create("gru", hidden=3, steps=2)


@pytest.mark.parametrize("accelerator", ["anderson-2", "picard", "picard+anderson-1"])
def test_nothing_to_learn(accelerator: str) -> None:
    if "+" in accelerator:
        with pytest.raises(ValueError, match="steps"):
            train(Alike(), accelerator, **SMALL)
        method = fp.accelerators.create("schedule", parts=accelerator.split("+"), steps=[2])
    else:
        with pytest.raises(ValueError, match="accelerator: Safeguarded has nothing to learn"):
            train(Alike(), accelerator, **SMALL)
        method = fp.accelerators.create(accelerator)
    with pytest.raises(ValueError, match=f"accelerator: {type(method).__name__} has nothing to learn"):
        train(Alike(), method, **SMALL)


def test_a_loss_that_needs_solutions_needs_a_family_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    take_solutions_away(monkeypatch)
    with pytest.raises(ValueError, match=r'loss: "solution" needs solutions .* RandomElasticNet has none.*"log-error"'):
        train(RandomElasticNet(3), network(), loss="solution", **SMALL)
    with pytest.raises(ValueError, match="accelerator: MeanStart needs solutions"):
        train(RandomElasticNet(3), fp.accelerators.create("mean-start"), **SMALL)
    train(RandomAffine(3), network(), loss="solution", **{**SMALL, "updates": 1})


BAD: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "horizon: expected a whole number >= 1, got 0": (ValueError, {"horizon": 0}),
    "unexpected keyword argument 'updtes'": (TypeError, {"updtes": 3}),
    "family: expected a ProblemFamily": (TypeError, {"family": 3}),
    "did you mean 'affine'": (LookupError, {"family": "afine"}),
    "family_options: these belong": (ValueError, {"family_options": {"size": 3}}),
    "accelerator: expected an Accelerator": (TypeError, {"accelerator": 3}),
    "did you mean 'gru'": (LookupError, {"accelerator": "grue"}),
    "options: these belong": (ValueError, {"options": {"gru": {"hidden": 3}}}),
    "built for another map .*size": (
        ValueError,
        {"accelerator": network().bind(RandomAffine(3).map.signature), "family": RandomAffine(2)},
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments(message: str, tmp_path: Path) -> None:
    error, changed = BAD[message]
    arguments = {"family": RandomAffine(3), "accelerator": network(), "out": tmp_path / "run", **SMALL, **changed}
    with pytest.raises(error, match=message):
        train(**arguments)
    assert not (tmp_path / "run").exists(), "nothing is written for a run that cannot begin"


class Cracking(RandomAffine):
    """An affine map that gives NaN for one instance once it was evaluated a number of times in training."""

    def __init__(self, instance: int, after: int) -> None:
        super().__init__(3)
        first = super().sample(16, generator=generator(0, "train")).b[instance]
        calls = iter(range(10**6))

        class Cracked(Affine):
            def forward(self, x: Tensor, context: Any) -> Tensor:
                fx = super().forward(x, context)
                if not torch.is_grad_enabled() or next(calls) < after:
                    return fx
                bad = (context.rows.b == first).all(1, keepdim=True)
                return torch.where(bad, torch.nan, fx)

        self.map = Cracked(3)


@pytest.mark.parametrize("folder", [True, False])
def test_a_number_that_is_not_finite_stops_the_run_and_says_where(folder: bool, tmp_path: Path) -> None:
    plan = {**SMALL, "updates": 40, "first_horizon": 6}
    instance, after = int(batch_of(9, Plan(**plan))[1]), 6 * 9 + 2  # the third evaluation of update 10
    seen: list[Report] = []
    with pytest.raises(TrainingError) as stopped:
        train(Cracking(instance, after), network(), out=tmp_path if folder else None, report=seen.append, **plan)
    message = str(stopped.value)
    assert f"update 10: not finite at evaluation 3 of training instance {instance};" in message
    assert "learning_rate" in message
    assert "horizon" in message
    best = re.search(r"best validation was at update (\d+)", message)
    assert best
    assert len(seen) == 9
    assert int(best[1]) in (0, 4, 8)
    kept = tmp_path / "best.safetensors"
    assert (str(kept) in message) == folder == kept.exists()
    if folder:
        problem = RandomAffine(3).sample(2, generator=torch.Generator().manual_seed(0))
        assert torch.isfinite(fp.unroll(Affine(3), problem, fp.load(kept), steps=6).fx).all()
        assert not (tmp_path / "trained.safetensors").exists()


def test_a_loss_that_is_not_finite_names_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: fp.Trajectory, scene: Scene) -> Tensor:
        loss = LOSSES["residual"](path, scene)
        return torch.cat([loss[:1], torch.cat([loss[1:, :2], loss[1:, 2:] * torch.nan], 1)])

    monkeypatch.setitem(LOSSES, "broken", broken)
    plan = {**SMALL, "first_horizon": 6, "loss": "broken"}
    third = int(batch_of(0, Plan(**plan))[2])
    with pytest.raises(TrainingError, match=f"update 1: not finite at evaluation 5 of training instance {third};"):
        train(Alike(), Factor(), **plan)  # "late": 3 evaluations are not judged, the loss breaks at the second judged
    with pytest.raises(TrainingError, match=f"update 1: not finite at evaluation 6 of training instance {third};"):
        train(Alike(), Factor(), window=2, **plan)


def test_gradients_that_are_not_finite_are_skipped_and_then_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    bad: set[int] = set()
    count = iter(range(1000))

    def kinked(path: fp.Trajectory, scene: Scene) -> Tensor:
        loss = LOSSES["log-residual"](path, scene)
        return loss + torch.sqrt(0 * loss) if next(count) in bad else loss

    monkeypatch.setitem(LOSSES, "kinked", kinked)
    plan = {**SMALL, "updates": 40, "loss": "kinked", "learning_rate": 0.1}
    factors: list[float] = []
    method = Factor(Alike().map.signature)

    def report(_: Report) -> None:
        factors.append(float(method.log_factor.detach()))

    bad |= {3, *range(10, 10 + MOST_SKIPPED - 1), 10 + MOST_SKIPPED}
    train(Alike(), method, report=report, **plan)
    still = [k for k in range(1, 40) if factors[k] == factors[k - 1]]
    assert still == sorted(bad), "left out, and the run goes on"

    factors.clear()
    count = iter(range(1000))
    bad |= set(range(20, 20 + MOST_SKIPPED))
    method = Factor(Alike().map.signature)
    with pytest.raises(
        TrainingError, match=f"update 30: the gradient was not finite {MOST_SKIPPED} times in a row.*best"
    ):
        train(Alike(), method, report=report, **plan)
    assert len(factors) == 20 + MOST_SKIPPED - 1
