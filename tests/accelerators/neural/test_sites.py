"""Sites: which coordinates belong together, what a site sees of the others, and that no site is told from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.plugins import checkpoint
from tests.accelerators.learners import scrambled

SIZE, HEADS = 15, [0, 7, 14]
"""Two blocks of 2 x 3 sites, a head before, between and behind them."""
SIGNATURE = fp.Signature(size=SIZE, coordinates={"map": "made up"})


def made(**options: Any) -> Any:
    given = {"hidden": 4, "steps": 5, "shape": [2, 3], "heads": HEADS, **options}
    return scrambled(fp.accelerators.create("site-gru", **given).bind(SIGNATURE))


def at(seed: int = 0) -> fp.Evaluation:
    x, residual = torch.randn(2, 3, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return fp.Evaluation(x, x + residual, residual)


def moved(method: Any, point: fp.Evaluation, x0: Tensor | None = None) -> Tensor:
    """(B, n) the start, then the correction of the first step, side by side: (B, 2, n)."""
    start, state = method.init(at(seed=9).x if x0 is None else x0, None)
    return torch.stack([start, method.step(point, state)[0] - point.fx], 1)


def test_where_the_coordinates_go() -> None:
    method, t = made(), torch.arange(float(SIZE))[None]
    heads, sites = method.apart(t)
    assert heads.tolist() == [[0, 7, 14]]
    assert sites.tolist() == [[[1, 8], [2, 9], [3, 10], [4, 11], [5, 12], [6, 13]]]
    assert torch.equal(method.together(heads, sites), t)


@pytest.mark.parametrize("order", [[3, 4, 5, 0, 1, 2], [1, 2, 0, 4, 5, 3]], ids=["rows", "columns"])
def test_rows_and_columns_in_another_order_are_answered_in_that_order(order: list[int]) -> None:
    method, point, x0 = made(), at(), at(seed=9).x
    index = torch.tensor([0, *(1 + i for i in order), 7, *(8 + i for i in order), 14])
    other = fp.Evaluation(*(part[:, index] for part in point))
    found = moved(method, other, x0[:, index])
    torch.testing.assert_close(found, moved(method, point, x0)[:, :, index], rtol=1e-5, atol=1e-6)


def test_an_order_that_is_none_of_rows_and_columns_is_another_matrix() -> None:
    """In a grid; in a single row any order is as good."""
    index = torch.tensor([0, 2, 1, 3, 4, 5, 6, 7, 9, 8, 10, 11, 12, 13, 14])
    for shape, same in (([2, 3], False), ([6], True), ([], True)):
        method, point, x0 = made(shape=shape), at(), at(seed=9).x
        found = moved(method, fp.Evaluation(*(part[:, index] for part in point)), x0[:, index])
        wanted = moved(method, point, x0)[:, :, index]
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6) is same


def test_what_belongs_together_is_corrected_together() -> None:
    """The residual of a site's one coordinate moves the other more than those of other sites; heads are seen by all."""
    method, point = made(), at()
    answer = moved(method, point)[:, 1]
    for coordinate in (2, 7):
        residual = point.residual.clone()
        residual[:, coordinate] *= 1.5
        change = (moved(method, fp.Evaluation(point.x, point.x + residual, residual))[:, 1] - answer).abs()
        assert change.min() > 0
        if coordinate == 2:
            assert bool((change[:, 9] > 1.5 * change[:, [8, 10, 11, 12, 13]].amax(1)).all())


def test_only_sites_have_a_learned_start() -> None:
    x0 = at(seed=9).x
    offset = made().init(x0, None)[0] - x0
    assert torch.equal(offset[:, HEADS], torch.zeros(3, 3, dtype=torch.float64))
    assert offset[:, [1, 8, 13]].abs().min() > 0
    assert torch.equal(made(start=False).init(x0, None)[0], x0)


def test_a_saved_one_is_the_same(tmp_path: Path) -> None:
    """The order of the coordinates with it."""
    method = made(base="anderson-2")
    checkpoint.save(method, tmp_path / "sites.safetensors")
    again = checkpoint.load(tmp_path / "sites.safetensors")
    assert torch.equal(moved(method, at()), moved(again, at()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": [3, 1]}, "heads: expected ascending whole numbers"),
        ({"heads": [-1]}, "heads: expected ascending whole numbers"),
        ({"heads": [True]}, "heads: expected ascending whole numbers"),
        ({"shape": [0]}, "shape: expected a whole number >= 1"),
        ({"shape": [5]}, r"shape: 12 coordinates do not make \[5\] equal sites"),
        ({"heads": [20]}, "heads: expected coordinates below 15, got 20"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        made(**options)
