"""What is timed: a solver prepares a job outside the clock, the job runs inside it and then says what it found."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.experiments.comparison import compare
from maps.scs import SCS, ConeProgram, solve

CONVERGED = fp.Status.CONVERGED


class Answer(NamedTuple):
    """What a solver returned for B instances."""

    x: Tensor
    """(B, n); y and s (B, m)."""
    y: Tensor
    s: Tensor
    evaluations: Tensor
    """(B,) evaluations of our map, or iterations of a peer."""
    claimed: Tensor
    """(B,) bool, whether the solver says that it met the target; the referee has the last word."""


class Job(ABC):
    """Instances and a target, ready to be solved again and again."""

    threads: int
    """At work at once, at most."""

    @abstractmethod
    def run(self) -> None:
        """Solve all instances, setup included. Only this is timed."""

    @abstractmethod
    def answer(self) -> Answer:
        """What the last `run` found, in the order of the instances."""

    def profile(self) -> dict[str, Any]:
        """An untimed run that warms up what there is to warm up; returns more fields of the record."""
        self.run()
        return {}


class Solver(ABC):
    """One row of the tables."""

    name: str
    variant: str
    form: str
    settings: dict[str, Any]
    peer: bool = True

    @abstractmethod
    def prepare(self, programs: Sequence[ConeProgram], eps: float) -> Job:
        """A job that solves `programs`, one call for each, to a true KKT error of `eps`."""


class Ours(Solver):
    """`maps.scs.solve`, a whole batch in one call.

    Args:
        variant: name of the row.
        row: {"form", "accelerator", "options" of the accelerator, "settings": keywords of `maps.scs.solve`}; with
            "trained": [family, setting] the accelerator has the weights that were trained for these.
    """

    name, peer = "fixedpoint", False

    def __init__(self, variant: str, row: Mapping[str, Any]) -> None:
        self.variant, self.form = variant, row["form"]
        self.settings = {name: row.get(name, {}) for name in ("options", "settings")}
        self.settings |= {name: row[name] for name in ("accelerator", "trained") if name in row}

    def prepare(self, programs: Sequence[ConeProgram], eps: float) -> Job:
        """See `Solver.prepare`."""
        name, trained = self.settings["accelerator"], self.settings.get("trained")
        if trained:
            accelerator = fp.load(compare.trained_files(*trained)[name])
        else:
            accelerator = fp.accelerators.create(name, **self.settings["options"])
        return _OurJob(programs, accelerator, {"eps_abs": eps, "eps_rel": eps, **self.settings["settings"]})


class _OurJob(Job):
    def __init__(self, programs: Sequence[ConeProgram], accelerator: fp.Accelerator, keywords: dict[str, Any]) -> None:
        self.programs, self.accelerator, self.keywords = programs, accelerator, keywords
        self.threads = torch.get_num_threads() * keywords.get("workers", 1)
        self.found: list[Any] = []

    def run(self) -> None:
        self.found = []  # the last run's memory is free for this one
        self.found = [solve(program, self.accelerator, **self.keywords) for program in self.programs]

    def answer(self) -> Answer:
        def joined(name: str) -> Tensor:
            return torch.cat([torch.as_tensor(getattr(one, name)) for one in self.found])

        x, y, s, evaluations = (joined(name) for name in Answer._fields[:4])
        return Answer(x, y, s, evaluations, joined("status") == CONVERGED)

    def profile(self) -> dict[str, Any]:
        """Peak memory of a run, then the time in another that goes to making the map and its `setup`."""
        self.found = []
        before = restart_peak()
        self.run()
        memory = {"before": before, "peak": peak()}
        spent = {"setup": 0.0}
        began = time.perf_counter()
        timed = {name: _timed(getattr(SCS, name), spent) for name in ("__init__", "setup")}
        with mock.patch.multiple(SCS, **timed):
            self.run()
        instances = sum(program.batch or 1 for program in self.programs)
        total = time.perf_counter() - began
        split = {"setup": spent["setup"], "iterate": total - spent["setup"]}
        return {
            "memory_mib": memory,
            "split_ms_per_instance": {part: 1e3 * seconds / instances for part, seconds in split.items()},
        }


def _timed(function: Any, spent: dict[str, float]) -> Any:
    def timed(*given: Any, **options: Any) -> Any:
        with clock(spent, "setup"):
            return function(*given, **options)

    return timed


@contextmanager
def clock(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of the block to an entry."""
    began = time.perf_counter()
    try:
        yield
    finally:
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began


def restart_peak() -> float:
    """Let `peak` count from here; returns the resident memory now, in MiB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Largest resident memory since `restart_peak`, in MiB (Linux)."""
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}")
