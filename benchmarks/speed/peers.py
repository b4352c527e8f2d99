"""Outside solvers. Each one solves a batch to a tolerance and says what it got; the referee checks it.

A new one is a `Solver` whose `prepare` converts the programs (untimed) and returns a `PeerJob`; `WORKERS` threads share
the instances of a batch, which is right where the solver releases the interpreter's lock, as scs does.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse

from benchmarks.speed.instances import rows
from benchmarks.speed.solver import Answer, Job, Solver
from maps.scs import ConeProgram, kkt_error
from maps.scs.problem.sparse_matrix import entries

WORKERS = 2
MOST = 5_000
"""Iterations after which an instance counts as not solved."""
_POOL = ThreadPoolExecutor(WORKERS)


class Found(NamedTuple):
    """A peer's word on one instance."""

    x: np.ndarray
    y: np.ndarray
    s: np.ndarray
    evaluations: int
    claimed: bool


class PeerJob(Job):
    """Instances that are solved one at a time, by each of `workers` threads; one worker works in the caller's."""

    def __init__(self, instances: int, workers: int) -> None:
        self.instances, self.threads = instances, workers
        self.found: list[Found | None] = [None] * instances

    @abstractmethod
    def worker(self) -> Callable[[int], Found]:
        """A function that solves instance i; every worker has its own."""

    def run(self) -> None:
        """See `Job.run`."""
        waiting = iter(range(self.instances))  # shared: whoever is free takes the next
        with redirect_stdout(io.StringIO()):
            if self.threads == 1:
                self._work(waiting)
            else:
                for done in [_POOL.submit(self._work, waiting) for _ in range(self.threads)]:
                    done.result()

    def _work(self, waiting: Iterator[int]) -> None:
        solve = self.worker()
        for i in waiting:
            self.found[i] = solve(i)

    def answer(self) -> Answer:
        """See `Job.answer`."""
        parts = zip(*(one for one in self.found if one is not None), strict=True)
        return Answer(*(torch.as_tensor(np.stack(part)) for part in parts))


class Scs(Solver):
    """The scs package with QDLDL (its automatic choice here, MKL, takes two to three times as long).

    Args:
        variant: name of the row.
        form: of the program.
        settings: of `scs.SCS`.
        reuse: keep a worker's factorization and update b and c, where a batch shares A and P.
        oracle: stop each instance at the first count of iterations at which it meets the target, found beforehand: what
            scs would take if it did not look at its residuals every 25 iterations only.
    """

    name = "scs"

    def __init__(
        self, variant: str, form: str, settings: dict[str, Any], *, reuse: bool = False, oracle: bool = False
    ) -> None:
        self.variant, self.form, self.oracle = variant, form, oracle
        self.settings = {"settings": settings, "reuse": reuse}
        # a workspace remembers its scale and its acceleration; exact counts need one that forgets
        forgets = settings.get("adaptive_scale") is False and settings.get("acceleration_lookback") == 0
        self.reuse = reuse and (forgets or not oracle)
        self._errors: dict[tuple[bool, int], dict[int, float]] = {}

    def prepare(self, programs: Sequence[ConeProgram], eps: float) -> Job:
        """See `Solver.prepare`."""
        single = all((program.batch or 1) == 1 for program in programs)
        shares = programs[0].A.ndim == 2 and (programs[0].P is None or programs[0].P.ndim == 2)
        data = [one for program in programs for one in instances(program)]
        reuse = self.reuse and shares and not single
        keywords = {"linear_solver": "qdldl", "verbose": False, "max_iters": MOST, **self.settings["settings"]}
        job = _ScsJob(data, programs[0].cones, keywords, eps, reuse, workers=1 if single else WORKERS)
        if self.oracle:
            batches = [(program, i) for program in programs for i in range(program.batch or 1)]
            job.counts = self._counts(job, batches, eps)
        return job

    def _counts(self, job: _ScsJob, batches: list[tuple[ConeProgram, int]], eps: float) -> list[int]:
        """Iterations for each instance; `MOST` where the target is not met."""

        def count(i: int) -> int:
            known, (batch, row) = self._errors.setdefault((job.reuse, i), {}), batches[i]

            def error(k: int) -> float:
                if k not in known:
                    found = job.solved(i, k, {})
                    point = (torch.as_tensor(part)[None] for part in found[:3])
                    known[k] = float(kkt_error(rows(batch, row, row + 1), *point))
                return known[k]

            return first_count(error, eps, MOST) or MOST

        with redirect_stdout(io.StringIO()):
            return list(_POOL.map(count, range(job.instances)))


class _ScsJob(PeerJob):
    def __init__(
        self,
        data: list[dict[str, Any]],
        cones: Any,
        keywords: dict[str, Any],
        eps: float,
        reuse: bool,
        workers: int,
    ) -> None:
        super().__init__(len(data), workers)
        self.data, self.keywords, self.eps, self.reuse = data, keywords, eps, reuse
        self.cones = {key: value for key, value in cones.items() if value}
        self.counts: list[int] | None = None

    def worker(self) -> Callable[[int], Found]:
        kept: dict[int, Any] = {}
        return lambda i: self.solved(i, None if self.counts is None else self.counts[i], kept)

    def solved(self, i: int, count: int | None, kept: dict[int, Any]) -> Found:
        """Instance i, to the target or to exactly `count` iterations.

        Args:
            i: the instance.
            count: None: scs decides when it is done.
            kept: workspaces of this worker, one for each count (it cannot be changed); used where `reuse` is set.
        """
        import scs

        stop = {"eps_abs": self.eps, "eps_rel": self.eps}
        if count is not None:
            stop = {"eps_abs": 0.0, "eps_rel": 0.0, "eps_infeas": 0.0, "max_iters": count}
        if not self.reuse:
            solution = scs.SCS(self.data[i], self.cones, **{**self.keywords, **stop}).solve()
        else:
            key = count or 0
            if key not in kept:
                kept[key] = scs.SCS(self.data[0], self.cones, **{**self.keywords, **stop})
            kept[key].update(b=self.data[i]["b"], c=self.data[i]["c"])
            solution = kept[key].solve(warm_start=False)
        info = solution["info"]
        return Found(solution["x"], solution["y"], solution["s"], info["iter"], info["status"] == "solved")


def first_count(error: Callable[[int], float], target: float, most: int) -> int | None:
    """An early k with error(k) <= target: a grid (1, 2, ..., then steps of k / 8), then bisection in its last step.

    Errors need not fall monotonically, so that an earlier k between two points of the grid may have been missed.
    """
    missed, k = 0, 1
    while not error(k) <= target:
        missed, k = k, k + max(1, k // 8)
        if k > most:
            return None
    while k - missed > 1:
        middle = (k + missed) // 2
        missed, k = (missed, middle) if error(middle) <= target else (middle, k)
    return k


def instances(program: ConeProgram) -> list[dict[str, Any]]:
    """The data of each instance as SciPy has it: A and P sparse by columns, P's upper triangle; shared ones once."""

    def matrices(name: str) -> list[Any]:
        pattern, values = program.patterns[name], entries(getattr(program, name), program.patterns[name])
        stored = values.detach().to(torch.float64).numpy()
        made = [
            sparse.csc_matrix((one, (pattern.rows, pattern.columns)), shape=pattern.shape)
            for one in (stored if stored.ndim == 2 else stored[None])
        ]
        return [sparse.triu(one, format="csc") for one in made] if name == "P" else made

    size = program.batch or 1
    b, c = (t.detach().to(torch.float64).expand(size, -1).numpy() for t in (program.b, program.c))
    parts = {name: matrices(name) for name in program.patterns}
    return [
        {**{name: part[i % len(part)] for name, part in parts.items()}, "b": b[i].copy(), "c": c[i].copy()}
        for i in range(size)
    ]
