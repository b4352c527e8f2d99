"""Training makes the accelerator better, and what comes back follows from plan and seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fixedpoint as fp
from fixedpoint.experiments.evaluation import generator, score, trace
from fixedpoint.learning.losses import LOSSES, Scene
from fixedpoint.learning.trainer import Trainer, batch_of
from fixedpoint.learning.training import Plan, Report, train
from fixedpoint.solve.loop import Iteration, roll
from maps.affine import Affine, RandomAffine
from maps.elastic_net import RandomElasticNet
from tests.learning.toys import SMALL, Alike, Factor, OneMatrix, gradients

LEARN: dict[str, Any] = {
    "horizon": 10,
    "updates": 60,
    "batch": 16,
    "instances": 64,
    "validation": 32,
    "evaluations": 60,
    "validate_every": 20,
    "learning_rate": 1e-2,
}


def small(kind: str = "gru", **plan: Any) -> Any:
    """A trained little network, and its validation scores."""
    options: dict[str, Any] = {"hidden": 4, "steps": 4, "seed": 1}
    seen: list[Report] = []
    family = RandomElasticNet(4)
    trained = train(family, fp.accelerators.create(kind, **options), report=seen.append, **{**SMALL, **plan})
    return trained, seen


def test_the_best_step_length_is_found() -> None:
    """For x = RATE x + b it is 1 / (1 - RATE) = 2, and then one step is enough."""
    plan = {**SMALL, "horizon": 4, "updates": 80, "validate_every": 40, "learning_rate": 0.1, "loss": "log-residual"}
    trained = train(Alike(), Factor(), **plan)
    assert float(trained.log_factor.detach().exp()) == pytest.approx(2, rel=0.01)
    problem = Alike().sample(5, generator=generator(7, "test"))
    errors = trace(Alike(), trained, problem, 3)[0]
    assert (errors[1] < 0.01 * errors[0]).all(), "one step"
    assert (trace(Alike(), Factor(), problem, 3)[0][1] > 0.4 * errors[0]).all(), "which it was not before"


@pytest.mark.parametrize("kind", ["coordinate-gru", "gru"])
def test_networks_learn(kind: str) -> None:
    """Fewer evaluations to 1e-3 on instances that were not trained on, and smaller errors where it was trained."""
    family = OneMatrix()
    seen: list[Report] = []
    trained = train(family, fp.accelerators.create(kind, hidden=8, steps=8), report=seen.append, **LEARN)
    problem = family.sample(64, generator=generator(5, "test"))
    after, before = (trace(family, a, problem, 60)[0] for a in (trained, fp.accelerators.create(kind, hidden=8)))
    assert score(after.numpy(), 60) < 0.8 * score(before.numpy(), 60)
    assert after[7].median() < 0.2 * before[7].median()
    assert seen[-1].loss < seen[0].loss - 0.5
    assert trained.provenance is not None
    assert trained.provenance["score"] == seen[-1].score


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    one, two, other = (small(seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    changed = [name for name in one if not torch.equal(one[name], other[name])]
    assert "points.mean" in changed, "other instances"
    assert any("cell" in name for name in changed)


def test_it_moves_every_parameter_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state(), torch.get_default_dtype()
    fresh = fp.accelerators.create("gru", hidden=4, steps=4, seed=1).bind(RandomElasticNet(4).map.signature)
    trained, seen = small(loss="log-residual", updates=20, validate_every=1, evaluations=6)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_default_dtype()
    assert trained.provenance["best_update"] > 3
    weights = dict(trained.named_parameters())
    still = [name for name, p in fresh.named_parameters() if torch.equal(p, weights[name])]
    assert not still
    assert [r.update for r in seen] == list(range(1, 21))
    assert not trained.training


def test_validation_and_training_instances_are_not_the_same() -> None:
    streams: list[Tensor] = []

    class Noting(Alike):
        def sample(self, batch: int, *, generator: torch.Generator) -> Any:
            problem = super().sample(batch, generator=generator)
            streams.append(problem.b)
            return problem

    train(Noting(), Factor(), **SMALL)
    assert [len(b) for b in streams] == [16, 4], "each is drawn once"
    assert not torch.equal(streams[0][:4], streams[1])
    assert torch.equal(streams[0], Alike().sample(16, generator=generator(0, "train")).b)
    assert torch.equal(streams[1], Alike().sample(4, generator=generator(0, "validation")).b)


def test_updates_see_the_instances_of_their_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def noting(path: fp.Trajectory, scene: Scene) -> Tensor:
        seen.append(scene.problem.b)
        assert torch.equal(scene.context.rows.b, scene.problem.b)
        assert scene.solutions is not None
        assert torch.allclose(scene.solutions, 2 * scene.problem.b)
        return LOSSES["solution"](path, scene)

    class Solved(Alike):
        def reference(self, problem: Any) -> Tensor:
            return 2 * problem.b

    monkeypatch.setitem(LOSSES, "noting", noting)
    monkeypatch.setattr("fixedpoint.learning.pool.NEEDS_SOLUTIONS", frozenset({"noting"}))
    plan = Plan(**{**SMALL, "loss": "noting"})
    train(Solved(), Factor(), **plan.to_json())
    pool = Alike().sample(16, generator=generator(0, "train")).b
    assert len(seen) == 12
    for update, b in enumerate(seen):
        assert torch.equal(b, pool[batch_of(update, plan)])
    for epoch in range(3):
        drawn = torch.cat(seen[4 * epoch : 4 * epoch + 4])
        assert torch.equal(drawn.sort(0).values, pool.sort(0).values), "every instance once"


def test_what_is_fitted_sees_plain_iterations() -> None:
    factor = Factor(Alike().map.signature)
    train(Alike(), factor, **SMALL)
    x, residual, features, solutions = factor.examples
    b = Alike().sample(16, generator=generator(0, "train")).b
    assert x.shape == residual.shape == (6, 16, 3)
    assert torch.equal(x[0], torch.zeros_like(b))
    assert torch.allclose(x[1], b)
    assert torch.allclose(residual[1], b / 2)
    assert features is None
    assert solutions is None


def test_one_that_is_only_fitted_is_fitted() -> None:
    family = RandomAffine(3)
    trained = train(family, fp.accelerators.create("mean-start"), **SMALL)
    solutions = family.reference(family.sample(16, generator=generator(0, "train")))
    assert torch.allclose(trained.mean.double(), solutions.mean(0), rtol=1e-5)
    assert trained.provenance is not None
    assert trained.provenance["updates"] == 0


def test_the_best_weights_come_back_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is right for 20 updates and then drives the step length away."""
    count = iter(range(100))

    def turning(path: fp.Trajectory, scene: Scene) -> Tensor:
        return LOSSES["log-residual"](path, scene) * (1 if next(count) < 20 else -1)

    monkeypatch.setitem(LOSSES, "turning", turning)
    seen: list[Report] = []
    factors: list[float] = []
    method = Factor(Alike().map.signature)

    def report(now: Report) -> None:
        seen.append(now)
        factors.append(float(method.log_factor.detach()))

    plan = {**SMALL, "updates": 60, "validate_every": 5, "learning_rate": 0.1, "loss": "turning", "horizon": 4}
    trained = train(Alike(), method, report=report, **plan)
    assert trained is method, "in place"
    best = trained.provenance["best_update"]
    assert 15 <= best <= 30
    assert float(trained.log_factor.detach()) == factors[best - 1]
    assert abs(factors[-1] - factors[best - 1]) > 0.1
    errors = trace(Alike(), trained, Alike().sample(4, generator=generator(0, "validation")), 12)[0]
    assert score(errors.numpy(), 12) == trained.provenance["score"] == seen[-1].score
    scores = [now.score for now in seen if now.score is not None]
    assert scores == sorted(scores, reverse=True), "of the best so far"


def test_the_last_weights_come_back_where_that_is_asked_for() -> None:
    """A step length that only gets worse: the best is the first, the result the last."""
    factors: list[float] = []
    method = Factor(Alike().map.signature)
    plan = {**SMALL, "updates": 6, "learning_rate": 3.0, "loss": "log-residual", "keep": "last"}
    trained = train(Alike(), method, report=lambda _: factors.append(float(method.log_factor.detach())), **plan)
    assert trained.provenance["best_update"] < 6
    assert float(trained.log_factor.detach()) == factors[-1]


def test_training_goes_on_from_trained_weights() -> None:
    """With the normalisation that they were trained with, and an account of both trainings."""
    plan = {**SMALL, "updates": 2, "keep": "last"}
    first = train(RandomAffine(3), fp.accelerators.create("gru", hidden=4, steps=2), **plan)
    before = {name: t.clone() for name, t in first.state_dict().items()}
    second = train(RandomAffine(3), first, **{**plan, "seed": 1})
    assert second.provenance["before"]["plan"]["seed"] == 0
    assert second.provenance["minutes"] >= second.provenance["before"]["minutes"]
    changed = {name for name, t in second.state_dict().items() if not torch.equal(t, before[name])}
    assert changed
    assert changed <= {name for name, _ in second.named_parameters()}, "buffers hold what was fitted"


def test_patience_ends_a_run_that_no_longer_improves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "away", lambda path, scene: -LOSSES["residual"](path, scene))
    plan = {**SMALL, "updates": 60, "validate_every": 5, "loss": "away", "learning_rate": 0.1}
    seen: list[Report] = []
    trained = train(Alike(), Factor(), report=seen.append, patience=3, **plan)
    assert len(seen) == 15, "three validations without a better score"
    assert float(trained.log_factor.detach()) == 0, "the untrained is the best"
    assert trained.provenance["updates"] == 15
    seen.clear()
    train(Alike(), Factor(), report=seen.append, **plan)
    assert len(seen) == 60


@pytest.mark.parametrize("plan", [{"window": 6}, {"checkpoint": True}], ids=str)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_one_window_and_checkpoints_change_no_gradient(kind: str, plan: dict[str, Any]) -> None:
    family = RandomElasticNet(4)
    method = fp.accelerators.create(kind, hidden=4, steps=4)
    plain, other = (gradients(family, method, updates=3, first_horizon=6, **p) for p in ({}, plan))
    assert len(plain) == 3
    for one, two in zip(plain, other, strict=True):
        assert sum(float(g.abs().sum()) for g in one) > 1e-3
        for a, b in zip(one, two, strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_checkpoints_evaluate_the_map_again() -> None:
    class Counting(Affine):
        calls = 0

        def forward(self, x: Tensor, context: Any) -> Tensor:
            self.calls += torch.is_grad_enabled()
            return super().forward(x, context)

    counts = []
    for checkpoint in (False, True):
        family = Alike()
        family.map = Counting(3)
        gradients(family, Factor(), updates=2, first_horizon=6, checkpoint=checkpoint)
        counts.append(family.map.calls)
    assert counts == [12, 24], "which is how they save memory"


def test_a_shorter_window_cuts_the_gradient() -> None:
    family, plan = RandomAffine(3), {"updates": 1, "first_horizon": 6, "weights": "even", "loss": "log-residual"}
    (whole,), (cut,), (again,) = (
        gradients(family, Factor(), **plan, **p) for p in ({}, {"window": 2}, {"window": 2, "checkpoint": True})
    )
    assert not torch.allclose(whole[0], cut[0], rtol=1e-2)
    assert torch.allclose(cut[0], again[0], rtol=1e-12), "checkpointed rounds leave the next window where it starts"
    # by hand: the same instances, the gradient cut after evaluations 2 and 4
    index = batch_of(0, Plan(**{**SMALL, **plan}))
    problem = family.sample(16, generator=generator(0, "train"))
    problem = problem._replace(A=problem.A[index], b=problem.b[index])
    method = Factor(family.map.signature)
    iteration, total = Iteration(family.map, family.map.setup(problem), method), torch.zeros(())
    for _ in range(3):
        path = roll(iteration, 2, proceed=True)
        total = total + torch.log10(torch.linalg.vector_norm(path.fx - path.x, dim=2) + 1e-6).sum() / 4 / 6
        iteration.detach()
    (expected,) = torch.autograd.grad(total, list(method.parameters()))
    assert torch.allclose(cut[0], expected, rtol=1e-12)


def test_gradients_are_clipped() -> None:
    plan: dict[str, Any] = {"updates": 1, "loss": "log-residual"}
    (free,), (clipped,) = (gradients(Alike(), Factor(), clip=clip, **plan) for clip in (1e6, 1e-3))
    assert float(free[0].abs()) > 0.1
    assert float(clipped[0].abs()) == pytest.approx(1e-3, rel=1e-3)
    assert isinstance(Trainer(Alike(), Factor(Alike().map.signature), Plan()).module, nn.Module)


def test_by_name(tmp_path: Path) -> None:
    options = {"coordinate-gru": {"hidden": 3, "steps": 2}}
    trained = train("affine", "coordinate-gru", family_options={"size": 3}, options=options, out=tmp_path, **SMALL)
    assert trained.signature is not None
    assert trained.signature.hash == RandomAffine(3).map.signature.hash
    (network,) = [m for m in trained.modules() if type(m).__name__ == "CoordinateGRU"]  # type: ignore[attr-defined]
    assert (network.hidden, network.steps) == (3, 2)
    loaded = fp.load(tmp_path / "trained.safetensors")
    problem = RandomAffine(3).sample(5, generator=generator(0, "test"))
    one, two = (fp.unroll(Alike().map, problem, method, steps=6).x for method in (trained, loaded))
    assert torch.equal(one, two)
    assert loaded.provenance == trained.provenance
    assert loaded.provenance["family"] == {"name": "affine", "options": {"size": 3}}
    assert loaded.provenance["plan"] == Plan(**SMALL).to_json()
