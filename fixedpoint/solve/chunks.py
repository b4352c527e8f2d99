"""A large batch by chunks: each is solved to its end before the next begins, so that memory is bounded by the chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from fixedpoint.gradients.warnings import warn_instances
from fixedpoint.solution import Progress, Status
from fixedpoint.solve.stopping import Stopping
from fixedpoint.solve.workers import run, shared
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_constant, where_rows

Rows = slice

_KEPT = 2**25 - 2**16
"""Bytes of the largest block that glibc takes as a hint (DEFAULT_MMAP_THRESHOLD_MAX is 32 MiB)."""


def solve(
    part: Callable[[Rows], dict[str, Any]],
    look: Callable[[], dict[str, Any]],
    batch: int,
    chunk: int,
    workers: int,
    stopping: Stopping,
) -> dict[str, Any]:
    """The results of all chunks, put together.

    Args:
        part: solves some rows; returns pytrees of batch-first tensors by name, among them "status", "residual" and
            "evaluations".
        look: the same for one row, without solving it: what a result looks like, before rows are handed out.
        batch: B.
        chunk: rows of a part, the last one perhaps fewer.
        workers: processes, see `workers.run`; with derivatives it is one.
        stopping: its `callback` is called with a `Progress` of the whole batch when a chunk of this process is done,
            and with several workers now and then while it waits for the others, and at the end; a true return value
            stops the solve, and so does its time limit. Instances that were not begun are MAX_EVALUATIONS, or
            TIME_LIMIT, after 0 evaluations, with NaN for numbers.

    Warns:
        AdjointWarning: a stopped solve with derivatives: those of instances that were not begun are 0.
    """
    _keep_memory()
    found = look() if workers > 1 else None
    if not all(is_constant(t) and t.device.type == "cpu" for t in pytrees.tensors(found).values()):
        found, workers = None, 1
    whole = None if found is None else _Assembly(batch, found, shared)

    def write(rows: Rows) -> None:
        nonlocal whole
        solved = part(rows)
        if whole is None:
            whole = _Assembly(batch, solved, torch.zeros)
        whole.add(rows, solved)

    def stop() -> bool:
        assert whole is not None
        wanted = stopping.callback is not None and bool(stopping.callback(whole.progress()))
        return wanted or stopping.expired

    run(write, _split(batch, chunk, workers), workers, stop)
    assert whole is not None
    return whole.result(stopping.exhausted)


@cache
def _keep_memory() -> None:
    """Let the C library keep what is freed for what is allocated next, up to 64 MiB, for the life of the process.

    A step of a large batch allocates and frees megabytes several times. glibc hands them back to the system and gets
    them again, page by page (a tenth of a solve), until a larger block was freed: then it keeps as much. Elsewhere this
    does nothing.
    """
    torch.empty(_KEPT, dtype=torch.uint8, device="cpu")


def _split(batch: int, chunk: int, workers: int) -> list[Rows]:
    """All rows; for several workers in equal shares."""
    count = workers * -(-batch // (workers * chunk))
    ends = [*range(0, batch, chunk), batch] if workers == 1 else [batch * k // count for k in range(count + 1)]
    return [slice(lo, hi) for lo, hi in itertools.pairwise(ends) if lo < hi]


class _Assembly:
    """Results of chunks on their way to those of the batch: written in place, but for those that have a derivative."""

    def __init__(self, batch: int, found: Any, zeros: Callable[..., Tensor]) -> None:
        self.batch = batch
        self.whole = pytrees.transform(partial(_zeros, zeros, batch), found)  # 0 is RUNNING
        self.parts: list[tuple[Rows, Any]] = []

    def add(self, rows: Rows, found: Any) -> None:
        """A chunk's."""
        tensors = pytrees.tensors(found)
        if any(not is_constant(t) for t in tensors.values()):
            self.parts.append((rows, found))
        for name, t in pytrees.tensors(self.whole).items():
            t[rows] = tensors[name].detach()

    def progress(self) -> Progress:
        """Of the batch."""
        now, status = self.whole, self.whole["status"].clone()
        residual = torch.where(status == Status.RUNNING, torch.nan, now["residual"])
        return Progress(int(now["evaluations"].max()), residual, status)

    def result(self, exhausted: Status) -> Any:
        """All rows; those that were not begun are `exhausted`."""
        whole = self.whole
        if self.parts:
            warn_instances(whole["status"] == Status.RUNNING, "the solve was stopped before it was begun")
            pieces, end = [], 0
            for rows, found in sorted(self.parts, key=lambda item: item[0].start):
                pieces += [pytrees.transform(lambda t, lo=end, hi=rows.start: t[lo:hi], whole), found]  # a gap, if any
                end = rows.stop
            pieces.append(pytrees.transform(lambda t: t[end:], whole))
            whole = pytrees.transform(lambda *ts: torch.cat(ts), pieces[0], *pieces[1:])
        waiting = whole["status"] == Status.RUNNING
        if bool(waiting.any()):
            whole = pytrees.transform(partial(_unknown, waiting), whole)
        return {**whole, "status": torch.where(waiting, exhausted, whole["status"])}


def _unknown(rows: Tensor, t: Tensor) -> Tensor:
    """NaN in some rows (B,), where the dtype has it."""
    return where_rows(rows, torch.full_like(t, torch.nan), t) if t.is_floating_point() else t


def _zeros(make: Callable[..., Tensor], batch: int, t: Tensor) -> Tensor:
    return make((batch, *t.shape[1:]), dtype=t.dtype, device=t.device)
