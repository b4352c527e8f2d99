"""Products with sparse matrices: every layout gives what the dense matrix gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from maps.scs import SparseMatrix
from maps.scs.problem.sparse_matrix import Pattern, times, transposed_times


def pattern(kind: str) -> Pattern:
    """With a full block in rows of one piece, in rows with gaps, scattered, less a column, or without one."""
    mask = np.zeros((40, 30), dtype=bool)
    if kind == "regular":
        mask[5:35, :20] = True
        mask[5:35, 25] = True
    elif kind == "gaps":
        mask[5:35, :20] = True
        mask[np.arange(5, 35, 2), 25] = True
    elif kind == "scattered":
        mask[np.ix_(np.arange(0, 30), np.r_[0:10, 15:25])] = True
    elif kind == "holes":
        mask[5:35, :20] = True
        mask[7, 3] = False
    if kind != "regular":
        mask[np.arange(30) + 8, np.arange(30)] = True
    rows, columns = np.nonzero(mask)
    return Pattern(rows, columns, mask.shape)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


KINDS = ("regular", "gaps", "scattered", "holes", "none")


@pytest.mark.parametrize("count", [4, 9])  # few rows, and as many as SciPy is used for
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_products(kind: str, batched: bool, count: int) -> None:
    places = pattern(kind)
    matrix = SparseMatrix(numbers(*([count] if batched else []), len(places)), places)
    for product, size in ((times, 30), (transposed_times, 40)):
        vector = numbers(count, size)
        expected = product(matrix.to_dense(), vector)
        torch.testing.assert_close(product(matrix, vector), expected)
        seen = torch.func.jvp(lambda v, of=product: of(matrix, v), (vector,), (vector,))
        torch.testing.assert_close(seen, (expected, expected))
        mapped = torch.func.vmap(lambda v, of=product: of(matrix, v))(torch.stack([vector, 2 * vector]))
        torch.testing.assert_close(mapped, torch.stack([expected, 2 * expected]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_block_is_found(kind: str) -> None:
    layout = pattern(kind).layout(torch.device("cpu"))
    size = {"regular": 630, "gaps": 600, "scattered": 600, "holes": 570, "none": 0}[kind]
    assert layout.block.places.numel() == size
    assert layout.block.places.numel() + len(layout.rest) == len(pattern(kind))
    assert layout.block.stride == (21 if kind == "regular" else 0)
    values = numbers(2, len(pattern(kind)))
    if size:
        torch.testing.assert_close(layout.block.view(values), values[:, layout.block.places])


def test_values_that_change_in_place_are_seen() -> None:
    places = pattern("none")
    matrix, vector = SparseMatrix(numbers(len(places)), places), numbers(2, 30)
    before = times(matrix, vector)
    matrix.values.mul_(2)
    torch.testing.assert_close(times(matrix, vector), 2 * before)


def test_gradients_through_a_shared_matrix() -> None:
    places = pattern("none")
    values, vector = numbers(len(places)).requires_grad_(), numbers(2, 30).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, v: times(SparseMatrix(a, places), v), (values, vector))
