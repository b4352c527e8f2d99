"""What a batch shares is prepared once, held by the caller, and refused where it does not belong."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint import Context, FixedPointMap, Signature


class Shared(NamedTuple):
    A: Tensor
    """(2, 2)"""
    b: Tensor
    """(B, 2)"""


class Halves(FixedPointMap[Shared, Context]):
    """x <- A x / 2 + b, where the half of A takes long to find."""

    ranks: ClassVar = {"A": 2, "b": 1}

    def __init__(self, built_with: Any = None) -> None:
        self.signature, self.built_with = Signature(size=2), built_with
        self.made: list[Tensor] = []

    def prepare(self, problem: Shared) -> Tensor | None:
        if problem.A.ndim == 3:
            return None
        self.made.append(problem.A / 2)
        return self.made[-1]

    def setup_shared(self, problem: Shared, shared: Tensor) -> Context:
        return Context(problem.b, shared, problem)

    def setup(self, problem: Shared) -> Context:
        return self.setup_shared(problem, problem.A / 2)

    def initial(self, context: Context) -> Tensor:
        return torch.zeros_like(context.rows)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x @ context.shared.mT + context.rows


A = torch.tensor([[0.5, 0.25], [0.125, 1.0]], dtype=torch.float64)


def problem(batch: int = 3, matrix: Tensor = A) -> Shared:
    return Shared(matrix, torch.arange(2.0 * batch, dtype=torch.float64).reshape(batch, 2))


def test_it_is_used_and_changes_nothing() -> None:
    map = Halves()
    prepared = fp.prepare(map, problem())
    for batch in (3, 5):
        found = fp.solve(map, problem(batch), prepared=prepared)
        assert torch.equal(found.x, fp.solve(Halves(), problem(batch)).x)
    assert len(map.made) == 1


def test_chunks_share_it_without_being_asked() -> None:
    map = Halves()
    found = fp.solve(map, problem(9), chunk=2)
    assert len(map.made) == 1
    torch.testing.assert_close(found.x, fp.solve(Halves(), problem(9)).x, rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", [[1, 0], [0, 1]])
def test_it_serves_the_very_numbers_it_was_made_from(order: list[int]) -> None:
    """Two entries that are swapped leave the sum what it was."""
    prepared = fp.prepare(Halves(), problem())
    other = A.clone()
    other[0] = other[0, order]
    if order == [0, 1]:
        assert fp.solve(Halves(), problem(matrix=other), prepared=prepared).converged.all()
        return
    with pytest.raises(ValueError, match=r"^prepared: A is not what it was made from; prepare anew$"):
        fp.solve(Halves(), problem(matrix=other), prepared=prepared)


def test_a_change_in_place_is_seen() -> None:
    matrix = A.clone()
    prepared = fp.prepare(Halves(), problem(matrix=matrix))
    matrix.data.numpy()[0, 0] += 1e-9
    with pytest.raises(ValueError, match=r"^prepared: A is not what it was made from"):
        fp.solve(Halves(), problem(matrix=matrix), prepared=prepared)


class Thirds(Halves):
    """Another map."""


@pytest.mark.parametrize(
    ("map", "asked", "message"),
    [
        (Thirds(), problem(), "^prepared: it was made by a map of another map;"),
        (Halves(built_with=1), problem(), "^prepared: it was made by a map of another options;"),
        (Halves(), problem(matrix=A.float()), "dtype"),
        (
            Halves(),
            problem(matrix=A.expand(3, 2, 2)),
            "^prepared: it was made for problems that share A, these share nothing",
        ),
        (Halves(), problem(matrix=A.clone().requires_grad_()), "^prepared: A is differentiated or mapped here"),
    ],
)
def test_it_refuses_what_it_was_not_made_for(map: Halves, asked: Shared, message: str) -> None:
    prepared = fp.prepare(Halves(), problem())
    with pytest.raises((ValueError, TypeError), match=message):
        fp.solve(map, asked, prepared=prepared, gradient="unroll")


def test_nothing_to_prepare_is_said() -> None:
    with pytest.raises(ValueError, match="Halves has nothing to prepare"):
        fp.prepare(Halves(), problem(matrix=A.expand(3, 2, 2)))
    with pytest.raises(ValueError, match=r"^problem: expected a batch"):
        fp.prepare(Halves(), Shared(A, torch.ones(2, dtype=torch.float64)))
