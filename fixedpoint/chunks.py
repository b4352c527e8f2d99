"""A large batch by chunks: each is solved to its end before the next begins, so that memory is bounded by the chunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fixedpoint import leaves
from fixedpoint.masks import constant
from fixedpoint.solution import Progress, Status

Rows = slice
Callback = Callable[[Progress], Any]


def check(chunk: Any, workers: Any) -> None:
    """Raise ValueError unless both are whole numbers >= 1 (a chunk may also be "auto" or None)."""
    for name, value in (("chunk", chunk), ("workers", workers)):
        free = name == "chunk" and (value is None or value == "auto")
        if not free and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")


def solve(
    part: Callable[[Rows], dict[str, Any]], batch: int, chunk: int, workers: int, callback: Callback | None
) -> dict[str, Any]:
    """The results of all chunks, put together.

    Args:
        part: solves some rows; returns pytrees of batch-first tensors by name, among them "status", "residual" and
            "evaluations". It must be safe to call in several threads.
        batch: B.
        chunk: rows of a part, the last one perhaps fewer.
        workers: threads.
        callback: called with a `Progress` of the whole batch when a chunk is done; a true return value stops the solve.
            Instances that were not begun are MAX_EVALUATIONS after 0 evaluations, with NaN for numbers.
    """
    whole = _Assembly(batch)
    for rows, found in _finished(part, [slice(lo, min(lo + chunk, batch)) for lo in range(0, batch, chunk)], workers):
        whole.add(rows, found)
        if callback is not None and callback(whole.progress()):
            break
    return whole.result()


def _finished(part: Callable[[Rows], Any], todo: list[Rows], workers: int) -> Iterator[tuple[Rows, Any]]:
    """(rows, result) as they come; no part begins after the caller stops asking."""
    if workers == 1:
        for rows in todo:
            yield rows, part(rows)
        return
    task = partial(_with_grad_mode, part, torch.is_grad_enabled())  # which is a thread's own
    with ThreadPoolExecutor(workers) as pool:
        running: dict[Future[Any], Rows] = {}
        while todo or running:
            while todo and len(running) < workers:
                rows = todo.pop(0)
                running[pool.submit(task, rows)] = rows
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()


def _with_grad_mode(part: Callable[[Rows], Any], enabled: bool, rows: Rows) -> Any:
    with torch.set_grad_enabled(enabled):
        return part(rows)


class _Assembly:
    """Results of chunks on their way to those of the batch: written in place, but for those that have a derivative."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.whole: Any = None
        self.parts: list[tuple[Rows, Any]] = []

    def add(self, rows: Rows, found: Any) -> None:
        """A chunk's."""
        if self.whole is None:
            self.whole = leaves.transform(partial(_empty, self.batch), found)  # 0 is RUNNING
        tensors = leaves.tensors(found)
        if any(not constant(t) for t in tensors.values()):
            self.parts.append((rows, found))
        for name, t in leaves.tensors(self.whole).items():
            t[rows] = tensors[name].detach()

    def progress(self) -> Progress:
        """Of the batch."""
        now = self.whole
        return Progress(int(now["evaluations"].max()), now["residual"].clone(), now["status"].clone())

    def result(self) -> Any:
        """All rows."""
        whole = self.whole
        if self.parts:
            pieces, end = [], 0
            for rows, found in sorted(self.parts, key=lambda item: item[0].start):
                pieces += [leaves.transform(lambda t, lo=end, hi=rows.start: t[lo:hi], whole), found]  # a gap, if any
                end = rows.stop
            pieces.append(leaves.transform(lambda t: t[end:], whole))
            whole = leaves.transform(lambda *ts: torch.cat(ts), pieces[0], *pieces[1:])
        status = whole["status"]
        return {**whole, "status": torch.where(status == Status.RUNNING, Status.MAX_EVALUATIONS, status)}


def _empty(batch: int, t: Tensor) -> Tensor:
    fill = torch.nan if t.is_floating_point() else 0
    return torch.full((batch, *t.shape[1:]), fill, dtype=t.dtype, device=t.device)


def require_memory(needed: float, batch: int, what: str = "chunk") -> None:
    """Refuse a batch that does not fit.

    Args:
        needed: bytes for an instance.
        batch: instances at once.
        what: the argument to blame.

    Raises:
        MemoryError: says what is needed, what is free, and which chunk fits.
    """
    free = available()
    if free is not None and needed * batch > free:
        fits = max(1, int(0.5 * free / needed))
        raise MemoryError(
            f"{what}: {batch} instances at once need about {needed * batch / 2**30:.1f} GiB and {free / 2**30:.1f} GiB "
            f"are free; chunk={fits} fits"
        )


def available() -> int | None:
    """Bytes of memory that are free for this process, as far as Linux tells; else None."""
    found = []
    try:
        found.append(1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]))
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError, IndexError):  # no Linux, no limit
        pass
    if not found and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found) if found else None
