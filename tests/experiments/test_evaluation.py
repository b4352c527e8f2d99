"""The protocol of comparisons: held-out streams, what is counted, what a record says, and the peer."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.experiments import evaluation
from fixedpoint.experiments.evaluation import (
    Peer,
    PeerPoint,
    evaluations_to,
    generator,
    measure,
    measure_peer,
    record,
    trace,
)
from maps.affine import RandomAffine
from maps.scs.families.diabetes import DiabetesLasso
from maps.scs.scs_package import ScsWheel

IDENTITY = {"family": "affine", "form": "standard", "accelerator": "picard", "variant": "default"}
IDENTITY |= {"setting": None, "shift": None, "training": None}
SPENT = {"setup": 0.1, "map": 0.2, "accelerator": 0.3, "total": 0.6}


def made(errors: np.ndarray, evaluations: np.ndarray | None = None, *, peer: bool = False) -> dict[str, Any]:
    """The record of errors (K, B), read back from strict JSON."""
    grid = np.arange(1, errors.shape[0] + 1) if evaluations is None else evaluations
    identity = {**IDENTITY, "peer": peer, "seed": 0, "steps": int(grid[-1]), "error": "residual"}
    return json.loads(json.dumps(record(identity, grid, errors, SPENT, {}), allow_nan=False))


class Poisoned(fp.Accelerator):
    """Plain iteration that hands out NaN to the first instance from its third evaluation on."""

    uses_features = False

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x0, torch.zeros_like(x0[:, 0])

    def step(self, at: fp.Evaluation, state: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.arange(len(state)) == 0
        return torch.where((first & (state >= 1))[:, None], torch.nan, at.fx), state + 1


# -- streams


def test_streams_are_repeatable_and_disjoint() -> None:
    def draws(seed: int, split: str) -> set[float]:
        return set(torch.rand(500, generator=generator(seed, split), dtype=torch.float64).tolist())

    streams = {(seed, split): draws(seed, split) for seed in (0, 1, 12345) for split in evaluation.SPLITS}
    for key, stream in streams.items():
        assert stream == draws(*key)
    for one, other in itertools.combinations(streams.values(), 2):
        assert not one & other


def test_a_stream_of_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seed: expected a whole number >= 0, got -1"):
        generator(-1, "test")
    with pytest.raises(ValueError, match=r"split: expected one of .*'validation'.*, got 'tset'"):
        generator(0, "tset")


# -- errors and what is counted


def test_a_trace_is_the_iteration() -> None:
    family = RandomAffine(size=3, rate=0.5)
    problem = family.sample(2, generator=generator(0, "test"))
    errors, spent = trace(family, fp.accelerators.create("picard"), problem, 4)
    x = torch.zeros(2, 3, dtype=torch.float64)
    for k in range(4):
        fx = (problem.A @ x[:, :, None])[:, :, 0] + problem.b
        torch.testing.assert_close(errors[k], torch.linalg.vector_norm(fx - x, dim=1))
        x = fx
    assert set(spent) == {"setup", "map", "accelerator"}


def test_evaluations_are_counted_to_the_first_that_is_good_enough() -> None:
    errors = np.array([[1.0, 1.0, 0.05], [0.1, 1.0, 0.2], [0.5, 0.2, 0.01]])
    assert evaluations_to(0.1, np.array([1, 2, 5]), errors).tolist() == [2, np.inf, 1]


def test_a_score_counts_evaluations_to_the_aim_and_a_little_beyond() -> None:
    errors = np.full((10, 4), 1.0)
    errors[4:] = 5e-4  # to 1e-3 after 5 evaluations
    errors[7:] = 5e-5  # to 1e-4 after 8
    assert evaluation.score(errors, 10) == pytest.approx(1.01 * 5 + 0.1 * 1.01 * 8)
    errors[4:, 0] = 1e-2  # one instance stays a decade away from the aim, two from a tenth of it
    near, far = 20 + 10 / 12, 20 + 10 * 2 / 12
    counts = np.array([[near, 5, 5, 5], [far, 8, 8, 8]])
    means = np.quantile(counts, [0.5, 0.9], axis=1).mean(0) + 1e-2 * counts.mean(1)
    assert evaluation.score(errors, 10) == pytest.approx(means[0] + 0.1 * means[1])


def test_milliseconds_add_up() -> None:
    family = RandomAffine(size=3)
    problem = family.sample(2, generator=generator(0, "test"))
    _, spent = measure(family, fp.accelerators.create("anderson-2"), problem, steps=3)
    assert spent["total"] == pytest.approx(spent["setup"] + spent["map"] + spent["accelerator"])
    assert min(spent.values()) > 0


# -- records


def test_what_most_instances_do_not_reach_is_null() -> None:
    errors = np.full((60, 10), 0.5)
    errors[19:, :6] = 1e-2  # six of ten get to 1e-2 at evaluation 20
    errors[39:, :4] = 1e-3  # four of ten get to 1e-3
    row = made(errors)
    assert row["evaluations_to"] == {
        "1e-2": {"median": 20, "p90": None},
        "1e-3": {"median": None, "p90": None},
        "1e-4": {"median": None, "p90": None},
    }
    assert row["error_at"]["10"] == {"median": 0.5, "p90": 0.5}
    assert row["error_at"]["20"] == {"median": 1e-2, "p90": 0.5}
    assert list(row["error_at"]) == ["5", "10", "20", "30", "50", "60"]
    assert row["status"] == {"MAX_EVALUATIONS": 10}


def test_quantiles_are_values_that_were_observed() -> None:
    errors = np.array([[1.0, 2.0, 3.0, np.inf]])
    assert made(errors)["error_at"]["1"] == {"median": 2.0, "p90": None}
    assert made(errors)["curve"] == {"evaluations": [1], "p10": [1.0], "median": [2.0], "p90": [None]}


def test_a_record_has_the_fields_of_the_schema() -> None:
    assert set(made(np.ones((3, 2)))) == {
        *("family", "form", "accelerator", "variant", "peer", "instances", "seed", "steps", "error", "error_at"),
        *("evaluations_to", "ms_per_instance", "batch", "training", "shift", "status", "settings", "curve"),
        *("setting", "residual_at", "versions", "revision"),
    }
    assert made(np.ones((3, 2)))["batch"] == 2
    assert made(np.ones((3, 2)), peer=True)["batch"] == 1
    assert "torch" in made(np.ones((3, 2)))["versions"]


def test_residuals_of_rays_are_reported_free_of_their_scale() -> None:
    picard = fp.accelerators.create("picard")
    affine = RandomAffine(size=3)
    plain = affine.sample(2, generator=generator(0, "test"))
    assert evaluation.fixed_point_residuals(affine, picard, plain, 3) is None
    assert made(np.ones((7, 2)))["residual_at"] is None
    family = DiabetesLasso()
    problem = family.sample(3, generator=generator(0, "test"))
    residuals = evaluation.fixed_point_residuals(family, picard, problem, 7)
    path = fp.unroll(family.map, problem, picard, 7)
    expected = torch.linalg.vector_norm(path.fx / path.fx[..., -1:] - path.x / path.x[..., -1:], dim=2)
    np.testing.assert_allclose(residuals, expected.numpy(), rtol=1e-9)
    identity = {**IDENTITY, "peer": False, "seed": 0, "steps": 7, "error": "kkt"}
    row = record(identity, np.arange(1, 8), np.ones((7, 3)), SPENT, {}, residuals)
    assert list(row["residual_at"]) == list(row["error_at"]) == ["5", "7"]
    assert row["residual_at"]["5"]["median"] == pytest.approx(float(expected[4].median()))


def test_lengths_are_infinite_not_nan_where_something_is_lost() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0]], requires_grad=True)
    size = evaluation.finite_norm(rows)
    assert size.tolist() == [5.0, 0.0, torch.inf, torch.inf]
    (gradient,) = torch.autograd.grad(size[:2].sum() + size[2:].clamp(max=1).sum(), rows)
    torch.testing.assert_close(gradient, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))


def test_a_diverging_instance_is_counted_not_raised() -> None:
    family = RandomAffine(size=3, rate=0.5)
    problem = family.sample(4, generator=generator(0, "test"))
    errors, _ = measure(family, Poisoned(), problem, steps=40)
    row = made(errors)
    assert row["status"] == {"CONVERGED": 3, "DIVERGED": 1}
    assert row["error_at"]["20"]["median"] < 1e-4
    assert row["error_at"]["20"]["p90"] is None


# -- peers


class Scripted(Peer):
    """A peer with the given errors, the same for each of three instances but for a NaN; it notes what it was asked."""

    name, settings = "scripted", {}

    def __init__(self, *errors: float) -> None:
        self.errors = errors
        self.asked: list[int] = []

    def run(self, problem: Any, evaluations: Iterable[int]) -> Iterator[PeerPoint]:
        for k in evaluations:
            self.asked.append(k)
            error = self.errors[min(k, len(self.errors)) - 1]
            instances = torch.tensor([1.0 if math.isnan(error) else error, error, error], dtype=torch.float64)
            yield PeerPoint(k, instances, setup=3.0, total=3.0 + 3 * k)


def test_a_peer_runs_until_it_is_good_enough() -> None:
    peer = Scripted(1, 1, 1, 1, 1, 1, 1e-5)
    evaluations, errors, spent = measure_peer(peer, None, steps=4, horizon=400)
    assert peer.asked == [1, 2, 3, 4, 5, 10]
    assert evaluations.tolist() == peer.asked
    assert errors[:, 0].tolist() == [1, 1, 1, 1, 1, 1e-5]
    assert spent == {"setup": 1000.0, "map": 4000.0, "accelerator": 0.0, "total": 5000.0}, "at 4 evaluations"


def test_a_peer_that_never_gets_there_stops_at_the_horizon() -> None:
    peer = Scripted(1.0)
    measure_peer(peer, None, steps=2, horizon=300)
    assert peer.asked == [1, 2, *range(5, 201, 5), 225, 250, 275, 300]


def test_a_peer_without_a_point_is_lost_not_raised() -> None:
    evaluations, errors, _ = measure_peer(Scripted(math.nan), None, steps=2, horizon=5)
    row = made(errors, evaluations, peer=True)
    assert row["status"] == {"MAX_EVALUATIONS": 1, "DIVERGED": 2}
    assert row["error_at"]["5"] == {"median": None, "p90": None}
    assert row["curve"]["p10"] == [1.0, 1.0, 1.0], "the instance that has a point keeps it"


def test_the_wheel_walks_our_path() -> None:
    """Its point k is ours after k evaluations: same map, no acceleration, static scale, QDLDL."""
    family = DiabetesLasso()
    problem = family.sample(3, generator=generator(0, "test"))
    ours, _ = trace(family, fp.accelerators.create("picard"), problem, 25)
    wheel = ScsWheel("scs", {"acceleration_lookback": 0, "adaptive_scale": False})
    counts = [1, 2, 5, 10, 25]
    for point in wheel.run(problem, counts):
        torch.testing.assert_close(point.error, ours[point.evaluations - 1], rtol=1e-6, atol=0)


def test_the_wheel_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Without normalization it complains after two iterations, whatever `verbose` says."""
    problem = DiabetesLasso().sample(16, generator=generator(0, "test"))
    (point,) = ScsWheel("scs", {"normalize": False}).run(problem, [1])
    assert point.error.shape == (16,)
    assert capsys.readouterr().out == ""
