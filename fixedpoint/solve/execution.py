"""How a batch is worked on: in how large pieces, by how many processes."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from typing import Literal

from fixedpoint.checked import require_whole

CHUNK_AT_LEAST, CACHE = 64, 2**24
"""Instances that are always solved at once, and bytes that a chunk may take where the size is ours to choose: it is
fastest while it stays in the last cache."""
_SHARE = 8
"""Instances that a worker gets at least."""


@dataclass(frozen=True)
class Execution:
    """How a batch is worked on; what is computed does not depend on it, but for rounding.

    Raises:
        ValueError: a number outside its range; the message names it.
    """

    chunk: int | Literal["auto"] | None = "auto"
    """Most instances that are worked on at once; None for all, "auto" for as many as a cache holds."""
    workers: int = 1
    """Processes that solve chunks side by side."""

    def __post_init__(self) -> None:
        for name in ("chunk", "workers"):
            value = getattr(self, name)
            if name == "chunk" and (value is None or (isinstance(value, str) and value == "auto")):
                continue
            require_whole(**{name: value})
            object.__setattr__(self, name, int(value))

    def at_once(self, batch: int, watched: bool) -> bool:
        """Whether a batch is small enough to need no chunks; one that a callback watches is not cut by "auto"."""
        if self.chunk == "auto":
            return batch <= CHUNK_AT_LEAST or watched
        return self.chunk is not None and batch <= self.chunk

    def processes(self, batch: int) -> int:
        """How many processes are worth it for a batch."""
        return max(1, min(self.workers, batch // _SHARE, _cores()))


def _cores() -> int:
    """That this process may use; one inside a daemonic process, which may have no children."""
    if multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
