"""Outside solvers in the speed benchmark: threads, kept factorizations and exact counts change nothing they find."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed import instances, measure
from benchmarks.speed.peers import Scs, first_count
from benchmarks.speed.solver import Ours
from tests.benchmarks.speed.toys import OURS, box

PLAIN = {"adaptive_scale": False, "acceleration_lookback": 0, "normalize": False}


def test_a_batch_is_solved_in_order_whatever_the_threads() -> None:
    program = box(12)
    whole, singly = (Scs("default", "quadratic", {}).prepare(parts, 1e-6) for parts in ([program], split(12)))
    assert (whole.threads, singly.threads) == (2, 1)
    for job, parts in ((whole, [program]), (singly, split(12))):
        job.run()
        assert bool((measure.referee(parts, job) <= 1e-6).all())
    torch.testing.assert_close(whole.answer().x, singly.answer().x, rtol=0, atol=0)


def split(count: int) -> list[instances.ConeProgram]:
    return [instances.rows(box(count), i, i + 1) for i in range(count)]


@pytest.mark.parametrize("reuse", [False, True])
def test_the_oracle_stops_at_the_first_iteration_that_meets_the_target(reuse: bool) -> None:
    program = box(8)
    solver = Scs("oracle", "quadratic", PLAIN, reuse=reuse, oracle=True)
    job = solver.prepare([program], 1e-4)
    assert job.reuse == reuse
    job.run()
    assert bool((measure.referee([program], job) <= 1e-4).all())
    assert job.answer().evaluations.tolist() == job.counts
    assert any(count % 25 for count in job.counts)
    job.counts = [count - 1 for count in job.counts]
    job.run()
    assert bool((measure.referee([program], job) > 1e-4).all())


def test_a_kept_factorization_finds_the_same() -> None:
    program = box(8)
    fresh, kept = (Scs("tuned", "quadratic", PLAIN, reuse=reuse).prepare([program], 1e-6) for reuse in (False, True))
    fresh.run()
    kept.run()
    torch.testing.assert_close(fresh.answer().x, kept.answer().x, rtol=0, atol=1e-12)


def test_exact_counts_do_not_reuse_what_remembers() -> None:
    assert not Scs("oracle", "quadratic", {**PLAIN, "acceleration_lookback": 5}, reuse=True, oracle=True).reuse
    assert not Scs("oracle", "quadratic", {}, reuse=True, oracle=True).reuse
    assert Scs("tuned", "quadratic", {}, reuse=True).reuse


def test_ours_is_called_once_for_every_batch_and_profiled() -> None:
    job = Ours("picard", OURS).prepare(split(3), 1e-4)
    extra = job.profile()
    assert len(job.found) == 3
    assert job.answer().x.shape == (3, 3)
    assert extra["split_ms_per_instance"]["setup"] > 0
    assert extra["memory_mib"]["peak"] >= extra["memory_mib"]["before"] > 10


@pytest.mark.parametrize("first", [1, 2, 9, 40, 77])
def test_first_count_is_exact_where_errors_fall(first: int) -> None:
    assert first_count(lambda k: 1.0 / k, 1.0 / first, 100) == first


def test_first_count_meets_the_target_where_errors_do_not_fall() -> None:
    errors = {k: 0.5 if k in (30, 33, 34) or k > 60 else 1.0 for k in range(1, 200)}
    found = first_count(errors.__getitem__, 0.5, 100)
    assert found is not None
    assert errors[found] == 0.5


def test_first_count_gives_up() -> None:
    assert first_count(lambda k: float("nan"), 1.0, 100) is None
