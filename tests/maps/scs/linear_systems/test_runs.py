"""Runs of places: all of them, each once, and slices where they lie evenly."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from maps.scs.linear_systems.condensed import runs

PLACES = st.lists(st.integers(0, 9), max_size=12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 40)), max_size=4), PLACES)
def test_pieces_are_the_columns(evenly: list[tuple[int, int, int]], oddly: list[int]) -> None:
    one = np.concatenate([np.array(oddly, dtype=np.int64), *(start + step * np.arange(k) for start, step, k in evenly)])
    columns = one, 3 * one + 1
    every = np.arange(400)
    found = runs.pieces(*columns)
    for part, column in zip(zip(*found, strict=True), (np.arange(len(one)), *columns), strict=True):
        taken = [every[at] if isinstance(at, slice) else at.numpy() for at in part]
        assert np.array_equal(np.concatenate(taken), column)
    for piece in found:
        if isinstance(piece[0], slice):
            assert all(at.step > 0 for at in piece), "no place comes twice in a run"


def test_an_even_column_is_a_slice() -> None:
    assert runs.places(np.arange(3, 99, 2)) == slice(3, 98, 2)
    assert isinstance(runs.places(np.array([*range(40), 7])), torch.Tensor)
    assert isinstance(runs.places(np.zeros(40, dtype=np.int64)), torch.Tensor)
    t = torch.arange(20.0).reshape(2, 10)
    for places in (slice(1, 7, 3), torch.tensor([1, 4])):
        assert runs.take(t, places).tolist() == [[1, 4], [11, 14]]


def test_the_order_has_long_runs() -> None:
    pivot, other = np.repeat(np.arange(50), 2), np.arange(100) // 2 + 50 * (1 + np.arange(100) % 2)
    assert len(runs.pieces(pivot, other)) == 1, "two edges of every pivot, one after the other"
    order = runs.order(pivot, other)
    assert [piece[0] for piece in runs.pieces(pivot[order], other[order])] == [slice(0, 50, 1), slice(50, 100, 1)]
