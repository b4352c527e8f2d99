"""Selecting rows: the same however many there are, inside transforms too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixedpoint.tensors import masks
from fixedpoint.tensors.masks import where_rows

ROWS = [[], [0], [1, 3], [0, 2, 3], [0, 1, 2, 3]]


def mask(rows: list[int]) -> torch.Tensor:
    return torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor(rows, dtype=torch.int64), True)


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.sampled_from([(), (3,), (0,), (2, 2)]))
def test_old_on_the_rows_that_are_done_new_elsewhere(done: list[bool], shape: tuple[int, ...]) -> None:
    old, new = torch.zeros(len(done), *shape), torch.ones(len(done), *shape)
    found = where_rows(torch.tensor(done), old, new)
    for row, one in enumerate(done):
        assert torch.equal(found[row], old[row] if one else new[row])


@pytest.mark.parametrize("rows", ROWS)
def test_derivatives_go_where_the_rows_come_from(rows: list[int]) -> None:
    old, new = (torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    where_rows(mask(rows), old, new).sum().backward()
    for t, expected in ((old, mask(rows)), (new, ~mask(rows))):
        got = torch.zeros_like(t) if t.grad is None else t.grad
        assert torch.equal(got, expected[:, None].expand(4, 2).double())


@pytest.mark.parametrize("rows", ROWS)
def test_inside_vmap_and_jvp(rows: list[int]) -> None:
    old, new = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    many = torch.func.vmap(where_rows)(mask(rows).expand(3, 4), old, new)
    assert torch.equal(many[1], where_rows(mask(rows), old[1], new[1]))
    _, tangent = torch.func.jvp(lambda t: where_rows(mask(rows), t, 2 * t), (old[0],), (new[0],))
    assert torch.equal(tangent, torch.where(mask(rows)[:, None], 1.0, 2.0).expand(4, 2))


def test_other_dtypes_are_promoted() -> None:
    found = where_rows(mask([0]), torch.zeros(4, 2), torch.ones(4, 2, dtype=torch.float64))
    assert found.dtype == torch.float64


@pytest.mark.parametrize(
    "ask",
    [masks.is_readable, masks.any_row, masks.row_indices, lambda mask: masks.masks_equal(mask, mask)],
)
def test_an_error_that_is_not_vmaps_is_not_swallowed(ask: Any) -> None:
    class Full(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise torch.OutOfMemoryError("device out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        ask(torch.zeros(3, dtype=torch.bool).as_subclass(Full))
