"""A batch by chunks: the same as at once, in bounded memory, with nothing lost on the way."""

from __future__ import annotations

import io
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import fixedpoint as fp
from fixedpoint.solve import batch, chunks, memory
from fixedpoint.solve.stopping import Stopping
from maps.affine import Affine, AffineProblem, RandomAffine


def family(batch: int = 20, seed: int = 0) -> tuple[Affine, AffineProblem]:
    made = RandomAffine()
    return made.map, made.sample(batch, generator=torch.Generator().manual_seed(seed))


def close(one: fp.Solution, two: fp.Solution) -> None:
    assert torch.equal(one.status, two.status)
    assert torch.equal(one.evaluations, two.evaluations)
    for name in ("x", "output", "residual"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-10, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("chunk", [1, 7, 19, 20, 100])
def test_chunks_change_nothing(chunk: int, workers: int) -> None:
    map, problem = family()
    whole = fp.solve(map, problem, "anderson-2", tolerance=1e-9)
    close(fp.solve(map, problem, "anderson-2", tolerance=1e-9, chunk=chunk, workers=workers), whole)


def test_auto_chunks_and_a_start() -> None:
    map, problem = family(200)
    start = torch.randn(200, map.signature.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = fp.solve(map, problem, start=start)
    close(fp.solve(map, problem, start=start, chunk="auto"), whole)
    close(fp.solve(map, problem, start=start, chunk=64), whole)


def test_a_faulty_instance_is_named_by_its_place_in_the_batch() -> None:
    map, problem = family()
    b = problem.b.clone()
    b[13] = torch.nan
    faulty = problem._replace(b=b)
    with pytest.raises(ValueError, match=r"b: expected finite numbers, got NaN or infinity in instance\(s\) \[13\]"):
        fp.solve(map, faulty, chunk=4)
    found = fp.solve(map, faulty, chunk=4, on_invalid="mark")
    close(found, fp.solve(map, faulty, on_invalid="mark"))
    assert found.statuses.count(fp.Status.INVALID) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_gradients_go_through_chunks(workers: int) -> None:
    map, problem = family(9)

    def gradient(**options: Any) -> list[torch.Tensor]:
        leaves = [t.clone().requires_grad_() for t in problem]
        solution = fp.solve(map, AffineProblem(*leaves), tolerance=1e-10, gradient="implicit", **options)
        solution.x.square().sum().backward()
        return [t.grad for t in leaves]

    for one, two in zip(gradient(), gradient(chunk=4, workers=workers), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


def test_chunks_inside_a_transform() -> None:
    map, problem = family(6)

    def loss(b: torch.Tensor, chunk: int | None) -> torch.Tensor:
        return fp.solve(
            map, problem._replace(b=b), tolerance=1e-10, gradient="implicit", chunk=chunk, workers=2
        ).x.sum()

    one, two = (torch.func.grad(loss)(problem.b, chunk) for chunk in (None, 4))
    torch.testing.assert_close(one, two)


def test_chunks_inside_vmap_are_one() -> None:
    map, problem = family(6)

    def solved(b: torch.Tensor) -> torch.Tensor:
        return fp.solve(map, problem._replace(b=b), tolerance=1e-10, chunk=2).x

    both = torch.func.vmap(solved)(torch.stack([problem.b, 2 * problem.b]))
    torch.testing.assert_close(both[0], solved(problem.b))


def test_inference_mode() -> None:
    map, problem = family()
    with torch.inference_mode():
        inside = fp.solve(map, problem, chunk=6)
    close(inside, fp.solve(map, problem))


def test_the_last_callback_sees_all_that_workers_did() -> None:
    map, problem = family(40)
    seen: list[int] = []

    def count(progress: fp.Progress) -> None:
        seen.append(int((progress.status != fp.Status.RUNNING).sum()))

    fp.solve(map, problem, chunk=4, workers=2, callback=count)
    assert seen == sorted(seen)
    assert seen[-1] == 40


def test_the_callback_sees_chunks_and_may_stop() -> None:
    map, problem = family()
    done: list[int] = []

    def stop_after_two(progress: fp.Progress) -> bool:
        assert progress.status.shape == (20,)
        done.append(int((progress.status != fp.Status.RUNNING).sum()))
        return len(done) == 2

    found = fp.solve(map, problem, chunk=6, callback=stop_after_two)
    assert done == [6, 12]
    assert bool(found.converged[:12].all())
    assert found.statuses[12:] == [fp.Status.MAX_EVALUATIONS] * 8
    assert found.evaluations[12:].tolist() == [0] * 8
    assert bool(found.x[12:].isnan().all())


def test_stopping_keeps_the_gradients_of_what_was_solved() -> None:
    map, problem = family()
    b = problem.b.clone().requires_grad_()
    with pytest.warns(fp.AdjointWarning, match=r"6, 7, 8, .* stopped before it was begun"):
        found = fp.solve(map, problem._replace(b=b), chunk=6, gradient="implicit", callback=lambda progress: True)
    found.x[:6].sum().backward()
    assert b.grad is not None
    assert bool((b.grad[:6] != 0).any(1).all())
    assert not bool(b.grad[6:].any())


def test_an_error_in_a_chunk_is_raised() -> None:
    class Fails(Affine):
        def forward(self, x: torch.Tensor, context: Any) -> torch.Tensor:
            raise ArithmeticError("no")

    _, problem = family()
    for workers in (1, 2):
        with pytest.raises(ArithmeticError, match=r"^no$"):
            fp.solve(Fails(problem.b.shape[1]), problem, chunk=5, workers=workers)


def test_a_worker_that_is_killed_is_noticed() -> None:
    parent = os.getpid()

    def part(rows: slice) -> dict[str, torch.Tensor]:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        number = torch.zeros(rows.stop - rows.start)
        return {"status": number.long() + 1, "residual": number, "evaluations": number.long()}

    with pytest.raises(RuntimeError, match=r"^workers: a process was killed \(exit code -9;"):
        chunks.solve(part, lambda: part(slice(0, 1)), 10, 2, 2, Stopping())


def test_an_error_that_cannot_be_sent_is_told() -> None:
    class Local(Exception):
        pass

    parent = os.getpid()

    def part(rows: slice) -> dict[str, torch.Tensor]:
        if os.getpid() != parent:
            raise Local("lost")
        number = torch.zeros(rows.stop - rows.start)
        return {"status": number.long() + 1, "residual": number, "evaluations": number.long()}

    with pytest.raises(RuntimeError, match=r"^Local: lost$"):
        chunks.solve(part, lambda: part(slice(0, 1)), 10, 2, 2, Stopping())


def test_workers_share_the_work() -> None:
    def part(rows: slice) -> dict[str, torch.Tensor]:
        number = torch.full((rows.stop - rows.start,), float(os.getpid()), dtype=torch.float64)
        return {"status": number.long(), "residual": number, "evaluations": number.long() * 0 + rows.start}

    found = chunks.solve(part, lambda: part(slice(0, 1)), 12, 2, 3, Stopping())
    assert len(set(found["residual"].tolist())) == 3


@pytest.mark.parametrize("batch", [1, 7, 8, 9, 20, 1000])
@pytest.mark.parametrize("chunk", [1, 5, 8, 64, 2000])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_row_is_in_one_chunk(batch: int, chunk: int, workers: int) -> None:
    parts = chunks._split(batch, chunk, workers)
    rows = [row for part in parts for row in range(part.start, part.stop)]
    assert rows == list(range(batch))
    assert all(0 < part.stop - part.start <= chunk for part in parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": np.float64(2)}, r"^chunk: .* got np\.float64"),
        ({"chunk": 0}, r"^chunk: expected a whole number >= 1, got 0$"),
        ({"chunk": 2.5}, r"^chunk: .* got 2\.5$"),
        ({"chunk": "all"}, r"^chunk: .* got 'all'$"),
        ({"chunk": True}, r"^chunk: .* got True$"),
        ({"workers": 0}, r"^workers: expected a whole number >= 1, got 0$"),
        ({"workers": None}, r"^workers: .* got None$"),
        ({"prepared": True}, r"^prepared: expected what fixedpoint\.prepare returns, or None, got True$"),
        ({"callback": 3}, r"^callback: expected a function"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    map, problem = family(3)
    with pytest.raises((ValueError, TypeError), match=message):
        fp.solve(map, problem, **options)


def test_too_little_memory_is_said_before_anything_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    map, problem = family()
    monkeypatch.setattr(batch, "_LARGE", 1)
    needed = 20 * batch._TEMPORARIES * 8 * map.signature.size
    monkeypatch.setattr(memory, "available", lambda _: needed // 2)
    with pytest.raises(
        MemoryError, match=r"^chunk: 20 instances at once need about .* free; chunk=\d+ fits$"
    ) as caught:
        fp.solve(map, problem)
    fits = int(str(caught.value).split("chunk=")[1].split()[0])
    assert 1 <= fits < 20
    found = fp.solve(map, problem, chunk=fits)
    monkeypatch.setattr(memory, "available", lambda _: None)  # nobody knows: no objection
    close(found, fp.solve(map, problem))


def test_memory_is_counted_in_bytes() -> None:
    free = memory.available(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50


def test_a_progress_bar_counts_instances() -> None:
    map, problem = family()
    out = io.StringIO()
    with fp.ProgressBar("maps", console=Console(file=out, force_terminal=True, width=80)) as bar:
        fp.solve(map, problem, chunk=6, callback=bar)
    assert "maps" in out.getvalue()
    assert "20/20" in out.getvalue()
    with pytest.raises(RuntimeError, match=r"^ProgressBar: enter it first"):
        fp.solve(map, problem, callback=fp.ProgressBar())


def test_warnings_number_instances_in_the_batch_not_in_their_chunk() -> None:
    map, b = Affine(1), torch.zeros(7, 1, dtype=torch.float64)
    A = torch.full((7, 1, 1), 0.5, dtype=torch.float64)
    A[5] = 0.999999  # it does not get there
    b = b.requires_grad_()
    solution = fp.solve(map, AffineProblem(A, 1 + b), max_evaluations=60, gradient="implicit", chunk=2)
    with pytest.warns(fp.AdjointWarning, match=r"instance\(s\) 5 cannot be trusted: the solve did not converge"):
        solution.x.sum().backward()


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    map, problem = family()
    counts: dict[str, Any] = {"max_evaluations": np.int64(7), "chunk": np.int64(6), "workers": np.int32(1)}
    found = fp.solve(map, problem, tolerance=0, check_interval=np.int64(2), **counts)
    close(found, fp.solve(map, problem, tolerance=0, max_evaluations=7))
