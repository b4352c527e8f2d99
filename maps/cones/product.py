"""A product of cones in SCS's row order; runs of equal blocks are projected in one operation."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maps.cones.cone import Cone
from maps.cones.nonnegative import Nonnegative
from maps.cones.second_order import SecondOrder
from maps.cones.zero import Zero

ConeSpec = Mapping[str, int | Sequence[int]]
"""SCS's description of a product: {"z": rows, "l": rows, "q": [lengths]}."""

KEYS: dict[str, type[Cone]] = {"z": Zero, "l": Nonnegative, "q": SecondOrder}
"""Cone of each key, in SCS's row order."""

LISTS = frozenset({"q"})
"""Keys that take a list of block lengths; the others take one number."""


class Run(NamedTuple):
    """Equal blocks one after the other."""

    cone: Cone
    start: int
    """First row."""
    blocks: int

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + self.blocks * self.cone.dim


class ProductCone(Cone):
    """K = K_1 x ... x K_r.

    Args:
        spec: SCS's description, e.g. {"z": 3, "l": 2, "q": [3, 4]}; missing keys are empty.

    Raises:
        ValueError: an unknown key, or a length that is not a whole number >= 0. Messages begin with "cones".
    """

    def __init__(self, spec: ConeSpec) -> None:
        for key in spec:
            if key not in KEYS:
                close = difflib.get_close_matches(str(key), KEYS, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"cones: unknown key {key!r}, known are {', '.join(KEYS)}{hint}")
        self.spec: dict[str, int | list[int]] = {}
        self.runs: list[Run] = []
        row = 0
        for key, kind in KEYS.items():
            lengths = _lengths(key, spec.get(key, [] if key in LISTS else 0))
            self.spec[key] = lengths if key in LISTS else lengths[0]
            for length, group in groupby(lengths):
                run = Run(kind(length), row, len(list(group)))
                if run.stop > run.start:
                    self.runs.append(run)
                row = run.stop
        super().__init__(row)

    @property
    def equalities(self) -> int:
        """Rows of the zero cone; they come first."""
        return sum(run.stop - run.start for run in self.runs if isinstance(run.cone, Zero))

    def project(self, z: Tensor) -> Tensor:
        """(B, m) -> (B, m), block by block."""
        return self._blockwise(z, "project")

    def project_dual(self, z: Tensor) -> Tensor:
        """(B, m) -> (B, m), block by block."""
        return self._blockwise(z, "project_dual")

    def _blockwise(self, z: Tensor, method: str) -> Tensor:
        parts = []
        for run in self.runs:
            blocks = z[:, run.start : run.stop].reshape(-1, run.cone.dim)
            parts.append(getattr(run.cone, method)(blocks).reshape(z.shape[0], -1))
        return torch.cat(parts, dim=1) if parts else z

    def share_within_blocks(self, d: Tensor, reduction: str) -> Tensor:
        """(B, m) row scalings made equal inside every block that is not separable.

        Args:
            d: (B, m).
            reduction: "max" or "mean" of the block.
        """
        parts = []
        for run in self.runs:
            part = d[:, run.start : run.stop]
            if not run.cone.separable:
                blocks = part.reshape(-1, run.blocks, run.cone.dim)
                one = blocks.amax(2, keepdim=True) if reduction == "max" else blocks.mean(2, keepdim=True)
                part = one.expand_as(blocks).reshape(part.shape)
            parts.append(part)
        return torch.cat(parts, dim=1) if parts else d


def _lengths(key: str, value: int | Sequence[int]) -> list[int]:
    """The value of a key as a list of lengths."""
    listed: list[Any] = list(value) if key in LISTS and isinstance(value, Iterable) else [value]
    for length in listed:
        whole = isinstance(length, numbers.Real) and not isinstance(length, bool) and float(length).is_integer()
        if not whole or length < 0:
            expected = "a list of whole numbers >= 0" if key in LISTS else "a whole number >= 0"
            raise ValueError(f"cones[{key!r}]: expected {expected}, got {value!r}")
    return [int(length) for length in listed]
