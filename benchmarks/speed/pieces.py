"""Where a solve's time, arithmetic and memory traffic go, by piece, whatever the map's private methods are called.

Two runs: `Pieces` adds up the seconds between Python's call and return events, each to the innermost piece that the
stack of project functions belongs to, so that C++ and SciPy count too; with `count=True` a dispatch mode adds up
operations, arithmetic and bytes instead, which only sees what torch dispatches.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.store import ROOT

PROJECT = tuple(str(ROOT / folder) + "/" for folder in ("fixedpoint", "maps", "accelerators"))
IN_MAP = {"linear_systems": "linear system", "/cones/": "projection", "embedding": "tau"}
"""Part of a file's name -> piece, within an evaluation."""
MAKING = ("of", "__init__", "setup", "initial", "featurize")
"""Functions of a map that are called once."""
LOOP, REST = "loop", "rest of the map"
SETUP = "setup"


def entered(piece: str, file: str, function: str) -> str:
    """The piece that a project function belongs to when it is called from another piece.

    Phases are the public methods: setup, retract, evaluate, assess and output of the map, step of an accelerator. Only
    an evaluation has finer pieces, by the file that a function is in.
    """
    if piece == LOOP:
        if "/maps/" in file and (function in MAKING or "faults" in file):
            return SETUP
        if "/accelerators/" in file:
            return "accelerator"
        if "/maps/" in file:
            phases = {"retract": "retract", "evaluate": REST, "forward": REST, "assess": "checks", "output": "checks"}
            return phases.get(function, "checks" if "kkt" in file or "result" in file else LOOP)
        return LOOP
    if piece == REST:
        return next((name for part, name in IN_MAP.items() if part in file), REST)
    return piece


class Pieces:
    """A context manager; the calling thread is watched while it is open.

    Args:
        count: count what torch dispatches instead of measuring time (counting slows everything down).
    """

    def __init__(self, *, count: bool = False) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._stack: list[str] = [LOOP]
        self._since = 0.0
        self._mode = _Counting(self) if count else None

    def __enter__(self) -> Pieces:
        if self._mode is not None:
            self._mode.__enter__()
        self._since = time.perf_counter()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *raised: Any) -> None:
        sys.setprofile(None)
        self._settle()
        if self._mode is not None:
            self._mode.__exit__(*raised)

    @property
    def piece(self) -> str:
        """Where the watched thread is now."""
        return self._stack[-1]

    def _event(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(PROJECT):
            return
        self._settle()
        if event == "call":
            code = frame.f_code
            file = code.co_filename.removeprefix(str(ROOT))
            self._stack.append(entered(self._stack[-1], file, code.co_name))
        elif len(self._stack) > 1:
            self._stack.pop()

    def _settle(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now


class _Counting(TorchDispatchMode):
    """Adds operations, floating-point operations and bytes to the piece that they belong to."""

    def __init__(self, pieces: Pieces) -> None:
        super().__init__()
        self.pieces = pieces

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        into = self.pieces.counts[self.pieces.piece]
        into["operations"] += 1
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        pointers = {t.data_ptr() for t in given if t.numel()}
        if made and all(t.data_ptr() in pointers for t in made if t.numel()) and function.is_view:
            return result  # nothing moves
        into["bytes"] += sum(_bytes(t) for t in (*given, *made))
        counter = flop_registry.get(function.overloadpacket)
        if counter is None:
            into["flops"] += max((t.numel() for t in (*given, *made)), default=0)
        else:
            into["flops"] += counter(*args, **kwargs, out_val=result)
        return result


def _bytes(t: torch.Tensor) -> int:
    """Memory that a tensor really has: repeated (expanded) axes count once."""
    entries = 1
    for size, stride in zip(t.shape, t.stride(), strict=True):
        entries *= size if stride else 1
    return entries * t.element_size()
