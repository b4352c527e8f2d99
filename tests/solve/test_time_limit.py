"""When the time is up: no instance is evaluated again, and what was reached is returned."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

import fixedpoint as fp
from fixedpoint import Status
from fixedpoint.solve import stopping
from maps.affine import Affine, AffineProblem


class Ticking:
    """A clock that goes on by one second whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    ticking = Ticking()
    monkeypatch.setattr(stopping.time, "monotonic", ticking)
    return ticking


def slow(rates: list[float]) -> tuple[Affine, AffineProblem]:
    A = torch.tensor(rates, dtype=torch.float64)[:, None, None]
    return Affine(1), AffineProblem(A, torch.ones(len(rates), 1, dtype=torch.float64))


def test_instances_that_are_not_done_are_told_so(clock: Ticking) -> None:
    map, problem = slow([0.1, 0.9999999])
    found = fp.solve(map, problem, tolerance=1e-2, time_limit=20)
    assert found.statuses == [Status.CONVERGED, Status.TIME_LIMIT]
    assert 1 < int(found.evaluations[1]) <= 20
    assert torch.equal(found.output, map.forward(found.x, map.setup(problem))), "numbers of its last evaluation"


def test_one_evaluation_is_always_done(clock: Ticking) -> None:
    found = fp.solve(*slow([0.9999999]), time_limit=0.5, check_interval=10)
    assert found.statuses == [Status.TIME_LIMIT]
    assert found.evaluations.tolist() == [1]


def test_chunks_that_were_not_begun_are_told_so(clock: Ticking) -> None:
    found = fp.solve(*slow([0.9999999] * 6), time_limit=20, chunk=2)
    assert found.statuses == [Status.TIME_LIMIT] * 6
    assert found.evaluations[:2].tolist() == [found.evaluations[0]] * 2
    assert found.evaluations[4:].tolist() == [0, 0]
    assert found.x[4:].isnan().all()


def test_without_a_limit_no_clock_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping.time, "monotonic", lambda: pytest.fail("asked for the time"))
    assert fp.solve(*slow([0.5])).converged.all()


def test_it_ends_in_time() -> None:
    began = time.monotonic()
    found = fp.solve(*slow([0.9999999999]), tolerance=1e-14, max_evaluations=10**9, time_limit=0.05)
    assert found.statuses == [Status.TIME_LIMIT]
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("limit", [0, -1.0, True, "1", float("nan")])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"^time_limit: expected seconds > 0 or None, got"):
        fp.solve(*slow([0.5]), time_limit=limit)
