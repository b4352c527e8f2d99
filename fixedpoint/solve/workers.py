"""Work side by side in forked processes that write their results into memory they share.

Threads would share one Python interpreter, which the many small operations of a solve keep busy. A fork costs some ten
milliseconds and copies nothing.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Task = TypeVar("Task")
_PATIENCE = 0.2
"""Seconds between two looks at a child."""


def shared(shape: Sequence[int], *, dtype: torch.dtype, device: Any = None) -> Tensor:
    """A tensor of zeros, on the CPU, that forked processes share; its memory is no file and goes with the tensor."""
    count = math.prod(shape)
    if count == 0:
        return torch.empty(tuple(shape), dtype=dtype, device="cpu")
    buffer = mmap.mmap(-1, count * torch.empty(0, dtype=dtype, device="cpu").element_size())
    return torch.frombuffer(buffer, dtype=dtype, count=count).reshape(tuple(shape))


def run(work: Callable[[Task], None], tasks: Sequence[Task], workers: int, stop: Callable[[], bool]) -> None:
    """Do all tasks; this process does the first of every `workers`, a child each of the others.

    Args:
        work: does one task; in a child, what it changes is lost unless it is in `shared` memory.
        tasks: in order.
        workers: processes, this one included. Children use one thread each.
        stop: asked here after every task of this process and, with children, while waiting for them and at the end; no
            task begins after it says so.

    Raises:
        Exception: whatever `work` raised, in any process. RuntimeError: a child was killed, or there is no fork.
    """
    workers = min(workers, len(tasks))
    if workers > 1 and "fork" not in multiprocessing.get_all_start_methods():
        raise RuntimeError("workers: this system cannot fork; use workers=1")
    halt = shared((1,), dtype=torch.uint8)
    context: Any = multiprocessing.get_context("fork" if workers > 1 else None)
    children = []
    try:
        for k in range(1, workers):
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(
                target=_child, args=(work, tasks[k::workers], halt, sender, os.getpid()), daemon=True
            )
            child.start()
            sender.close()
            children.append((child, receiver))

        def ask() -> None:
            if not bool(halt) and stop():
                halt.fill_(1)

        for task in tasks[:: max(workers, 1)]:
            if bool(halt):
                break
            work(task)
            ask()
            if any(child.exitcode for child, _ in children):
                break
        for child, receiver in children:
            while child.is_alive() and not receiver.poll(_PATIENCE):
                ask()
        for child, receiver in children:
            _join(child, receiver)
        if children:
            ask()
    finally:
        for child, _ in children:
            if child.is_alive():
                child.terminate()
            child.join()


def _child(work: Callable[[Any], None], tasks: Sequence[Any], halt: Tensor, sender: Any, parent: int) -> None:
    torch.set_num_threads(1)  # the parent's threads were not forked, and waiting for them never ends
    try:
        for task in tasks:
            if bool(halt) or os.getppid() != parent:  # nobody waits any more
                break
            work(task)
        sender.send(None)
    except BaseException as error:
        halt.fill_(1)
        try:
            sender.send(error)
        except Exception:  # it cannot be pickled
            sender.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _join(child: Any, receiver: Any) -> None:
    """Wait for a child, and raise what it raised."""
    try:
        error = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(
            f"workers: a process was killed (exit code {child.exitcode}; -9 is often a lack of memory, which a smaller "
            "chunk saves); what it was doing is lost"
        ) from None
    if error is not None:
        raise error
