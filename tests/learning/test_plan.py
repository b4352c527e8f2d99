"""What a plan refuses, and what it makes of an update and a step."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fixedpoint.learning.trainer import batch_of, windows
from fixedpoint.learning.training import Plan

COUNTS = ("horizon", "updates", "batch", "instances", "validation", "validate_every", "evaluations")
OPTIONAL = ("first_horizon", "window", "patience")
BAD: list[tuple[str, Any]] = [(name, value) for name in COUNTS for value in (0, -1, 2.0, True, None, "3")]
BAD += [(name, value) for name in OPTIONAL for value in (0, -1, 2.0, True, "3")]
BAD += [
    (name, value)
    for name in ("learning_rate", "clip", "floor")
    for value in (0, -1.0, math.inf, math.nan, None, "1", True)
]
BAD += [("loss", "squares"), ("loss", None), ("loss", ["residual"]), ("weights", "early"), ("weights", None)]
BAD += [("seed", -1), ("seed", 0.5), ("seed", True), ("seed", None), ("checkpoint", "no"), ("checkpoint", 1)]


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
def test_a_bad_field_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        Plan(**{name: value})


def test_fields_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="first_horizon: expected at most the horizon, 20, got 21"):
        Plan(horizon=20, first_horizon=21)
    with pytest.raises(ValueError, match="batch: expected at most the 31 training instances, got 32"):
        Plan(batch=32, instances=31)
    assert Plan(horizon=20, first_horizon=20, batch=32, instances=32).window is None


def test_as_json_and_back() -> None:
    plan = Plan(loss="residual", window=3, patience=2, learning_rate=1e-2)
    assert Plan(**json.loads(json.dumps(plan.to_json()))) == plan


def test_the_horizon_grows_over_the_first_half_of_the_run() -> None:
    plan = Plan(horizon=20, first_horizon=4, updates=100)
    horizons = [plan.horizon_at(update) for update in range(100)]
    assert horizons[0] == 4
    assert horizons[25] == 12
    assert horizons[46] < 20
    assert horizons[50:] == [20] * 50
    assert horizons == sorted(horizons)
    assert Plan(horizon=20).horizon_at(0) == 10
    assert Plan(horizon=1).horizon_at(0) == 1
    assert Plan(horizon=7, first_horizon=7).horizon_at(0) == 7


def test_the_learning_rate_rises_briefly_and_falls_along_a_cosine() -> None:
    plan = Plan(learning_rate=0.1, updates=1000)
    rates = [plan.learning_rate_at(update) for update in range(1000)]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert rates[9] == pytest.approx(0.1 / 2, rel=1e-2)
    assert max(rates) == pytest.approx(0.1, rel=1e-2)
    assert rates.index(max(rates)) == 19
    assert rates[500] == pytest.approx(0.1 * (0.02 + 0.98 / 2))
    assert rates[250] == pytest.approx(0.1 * (0.02 + 0.98 * (0.5 + math.sqrt(0.125))))
    assert rates[999] == pytest.approx(0.1 * 0.02, rel=1e-2)
    assert Plan(learning_rate=0.1, updates=1).learning_rate_at(0) == pytest.approx(0.1)


@pytest.mark.parametrize("weights", ["late", "even", "last"])
@pytest.mark.parametrize("horizon", [1, 2, 5, 20])
def test_weights_add_up_to_one(weights: str, horizon: int) -> None:
    found = Plan(weights=weights).weights_at(horizon)
    assert len(found) == horizon
    assert sum(found) == pytest.approx(1, abs=1e-12)
    assert found == sorted(found), "what is not judged comes first"


def test_which_steps_are_weighted() -> None:
    assert Plan(weights="late").weights_at(4) == [0, 0, 0.5, 0.5]
    assert Plan(weights="late").weights_at(5) == [0, 0, 1 / 3, 1 / 3, 1 / 3]
    assert Plan(weights="even").weights_at(4) == [0.25] * 4
    assert Plan(weights="last").weights_at(4) == [0, 0, 0, 1]


def test_windows_cover_the_horizon() -> None:
    assert list(windows(10, None)) == [(0, 10)]
    assert list(windows(10, 10)) == [(0, 10)]
    assert list(windows(10, 4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(windows(3, 5)) == [(0, 3)]


def test_an_epoch_has_every_instance_once() -> None:
    plan = Plan(batch=4, instances=20, seed=3)
    epochs = [[i for k in range(5) for i in batch_of(5 * epoch + k, plan).tolist()] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(20))] * 3
    assert epochs[0] != epochs[1] != epochs[2], "in another order"
    assert batch_of(7, plan).tolist() == batch_of(7, plan).tolist()
    assert batch_of(7, plan).tolist() != batch_of(7, Plan(batch=4, instances=20, seed=4)).tolist()


def test_the_rest_of_an_epoch_is_another_every_time() -> None:
    plan = Plan(batch=4, instances=6)
    seen: set[int] = set()
    for update in range(20):
        index = batch_of(update, plan).tolist()
        assert len(set(index)) == 4
        seen |= set(index)
    assert seen == set(range(6))
