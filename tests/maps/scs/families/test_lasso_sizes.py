"""Lassos of other sizes: what the arguments say, and at the default size the very instances from before them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fixedpoint.tensors import pytrees
from maps.scs import solve
from maps.scs.families.lasso import Lasso


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("form", ["quadratic", "conic"])
def test_the_default_size_draws_what_it_always_did(form: str) -> None:
    generator, family = seeded(), Lasso(form)
    X = torch.randn(100, 50, generator=generator, dtype=torch.float64)
    beta = torch.randn(50, generator=generator, dtype=torch.float64)
    noise = torch.randn(100, generator=generator, dtype=torch.float64)
    beta[torch.randperm(50, generator=generator)[:45]] = 0
    Y = X @ beta + 0.1 * noise
    drawn = family._draw(seeded())
    assert torch.equal(torch.from_numpy(drawn[0]), X)
    assert torch.equal(torch.from_numpy(drawn[1]), Y)
    assert drawn[2] == 0.1 * float((X.mT @ Y).abs().max())
    one = pytrees.tensors(family.sample(2, generator=seeded()))
    two = pytrees.tensors(Lasso(form, variables=50, samples=100).sample(2, generator=seeded()))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("form", "n", "m"), [("quadratic", 2 * 7 + 12, 12 + 2 * 7), ("conic", 2 * 7 + 2, 2 * 7 + 14 + 2)]
)
def test_another_size(form: str, n: int, m: int) -> None:
    family = Lasso(form, variables=7, samples=12, nonzeros=2)
    program = family.sample(3, generator=seeded())
    X, Y, weight = family._draw(seeded())
    assert (X.shape, Y.shape) == ((12, 7), (12,))
    assert family.map.signature.size == n + m + 1
    assert program.n == n
    beta = solve(program, eps_abs=1e-9, eps_rel=1e-9).x[0, :].double()
    value = torch.from_numpy(X), torch.from_numpy(Y)
    starts = [k for k in range(n - 6) if _is_optimal(beta[k : k + 7], *value, weight)]
    assert len(starts) == 1, "some seven of the variables are the Lasso's"


def _is_optimal(beta: torch.Tensor, X: torch.Tensor, Y: torch.Tensor, weight: float) -> bool:
    """The Lasso's optimality condition: 2 X'(X beta - Y) is -weight sign(beta), or within +-weight where beta is 0."""
    gradient, zero = 2 * X.mT @ (X @ beta - Y), beta.abs() < 1e-6
    good = torch.where(zero, gradient.abs() <= weight + 1e-5, (gradient + weight * beta.sign()).abs() < 1e-5)
    return bool(good.all()) and not bool(zero.all())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"variables": 0}, "variables"),
        ({"variables": 50.0}, "variables"),
        ({"samples": 0}, "samples"),
        ({"samples": True}, "samples"),
        ({"variables": 4}, "nonzeros.*0 to 4"),
        ({"variables": 60, "nonzeros": 61}, "nonzeros"),
    ],
)
def test_sizes_out_of_range_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Lasso(**wrong)


def test_more_coefficients_than_fifty() -> None:
    Lasso(variables=60, samples=10, nonzeros=60)
