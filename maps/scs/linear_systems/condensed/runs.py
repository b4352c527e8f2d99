"""Places in the rows of a batch, as slices where they lie evenly: a slice is a view, an index copies.

The patterns of structured programs are full of such runs (one constraint per coordinate, say), and with views an update
of a whole run is one fused operation.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

WORTH = 16
"""Places in an average run from which on runs are faster than an index."""

Index: TypeAlias = np.ndarray
"""int64"""
Places: TypeAlias = slice | Tensor
"""What `t[:, places]` takes."""


def order(first: Index, *others: Index) -> Index:
    """In which order columns of equal length have long runs: by their differences from the first, then by that."""
    return np.lexsort((first, *(other - first for other in others)))


def pieces(*columns: Index) -> list[tuple[Places, ...]]:
    """[(positions, the columns' places there)]: slices for the runs, or one piece for all if runs are short."""
    table = np.stack([np.arange(len(columns[0])), *columns])
    steps = np.diff(table)
    onward = np.all(steps > 0, axis=0).tolist()
    same = np.all(steps[:, 1:] == steps[:, :-1], axis=0).tolist()
    ends = [0]
    for i in range(len(onward)):
        if not (onward[i] and (i == ends[-1] or same[i - 1])):
            ends.append(i + 1)
    ends.append(table.shape[1])
    if WORTH * (len(ends) - 1) > table.shape[1]:
        return [tuple(torch.from_numpy(column) for column in table)]
    return [tuple(map(_slice, table[:, lo:hi])) for lo, hi in itertools.pairwise(ends)]


def places(column: Index) -> Places:
    """The places of one column, a slice if they are one run."""
    found = pieces(column)
    return found[0][1] if len(found) == 1 else torch.from_numpy(column)


def take(t: Tensor, at: Places) -> Tensor:
    """t[:, at] for t (B, k)."""
    return t[:, at] if isinstance(at, slice) else t.index_select(1, at)  # `t[:, at]` takes four times as long


def _slice(run: Index) -> slice:
    step = int(run[1] - run[0]) if len(run) > 1 else 1
    return slice(int(run[0]), int(run[-1]) + 1, step)
