"""Affine maps against their closed form."""

from __future__ import annotations

import pytest
import torch

import fixedpoint as fp
from maps.affine import Affine, AffineProblem, RandomAffine


@pytest.mark.parametrize("shared", [True, False])
def test_solution_is_the_known_one(shared: bool) -> None:
    family = RandomAffine(6)
    problem = family.sample(5, generator=torch.Generator().manual_seed(0))
    if shared:
        problem = problem._replace(A=problem.A[0])
    solution = fp.solve(family.map, problem, "anderson-2", tolerance=1e-11)
    assert solution.converged.all()
    assert torch.allclose(solution.x, family.reference(problem), rtol=1e-9, atol=1e-9)


def test_shared_equals_per_row() -> None:
    problem = RandomAffine(4).sample(3, generator=torch.Generator().manual_seed(0))
    shared = AffineProblem(problem.A[0], problem.b)
    rows = AffineProblem(problem.A[:1].expand(3, 4, 4), problem.b)
    one, two = (fp.unroll(Affine(4), p, None, steps=9).fx for p in (shared, rows))
    assert torch.allclose(one, two, rtol=1e-13, atol=1e-13)


def test_rate_out_of_range() -> None:
    with pytest.raises(ValueError, match="rate"):
        RandomAffine(3, rate=1.0)
    with pytest.raises(ValueError, match="size"):
        Affine(0)
