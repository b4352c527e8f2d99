"""Learned accelerators under torch.func: batches of any size, vmap, derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fixedpoint as fp
from fixedpoint.tensors import pytrees
from tests.accelerators.learners import FAMILY, SIZES, begin, evaluations, features, problems, taught

NAMES = list(SIZES)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("name", NAMES)
def test_any_batch_gives_the_same_rows(name: str, batch: int) -> None:
    method = taught(name)
    whole = fp.unroll(FAMILY.map, problems(7), method, steps=8)
    some = fp.unroll(FAMILY.map, type(problems())(*(t[:batch] for t in problems(7))), method, steps=8)
    assert some.x.shape == (8, batch, 5)
    assert torch.allclose(some.x, whole.x[:, :batch], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_one_under_vmap_are_the_batch(name: str) -> None:
    """Past the last learned step, where nobody can look whether it is past."""
    method = taught(name) if name == "warm-start" else taught(name, steps=2)

    def three(given: Tensor | None, *ats: fp.Evaluation) -> Tensor:
        x0 = torch.zeros_like(ats[0].x)
        x, state = method.init(x0, given, None)
        found = [x]
        for at in ats:
            x, state = method.step(at, state)
            found.append(x)
        return torch.stack(found, dim=1)

    ats = evaluations(4, 3)
    given = features(4) if method.uses_features else None
    expected = three(given, *ats)
    one = pytrees.transform(lambda t: t[:, None], (given, *ats))
    dims = (None if given is None else 0, *[0] * 3)
    mapped = torch.func.vmap(three, in_dims=dims)(*one)[:, 0]
    assert torch.allclose(mapped, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("still", [False, True], ids=["moving", "at rest"])
def test_derivatives_are_finite(name: str, still: bool) -> None:
    """Also where the residual is 0 and the history repeats itself."""
    method = taught(name)
    weights = dict(method.named_parameters())
    at = evaluations(2, 1)[0]
    size = 0.0 if still else 1.0

    def last(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        def run(module: Any) -> Tensor:
            following, state = begin(module, 2)
            for k in range(4):
                here = x if still else following + k * x
                residual = size * (at.residual - 0.3 * here)
                following, state = module.step(fp.Evaluation(here, here + residual, residual), state)
            return following

        return functional(run, method, weights)

    jacobian = torch.func.jacrev(lambda x: last(x, weights))(at.x)
    assert torch.isfinite(jacobian).all()
    assert jacobian.abs().max() > 0.1
    gradient = torch.func.grad(lambda w: last(at.x, w).square().sum())(weights)
    assert all(torch.isfinite(g).all() for g in gradient.values())


def functional(run: Any, module: nn.Module, weights: dict[str, Tensor]) -> Tensor:
    """`run(module)` as a function of the module's weights."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self) -> Tensor:
            return run(self.inner)

    return torch.func.functional_call(Around(), {f"inner.{name}": w for name, w in weights.items()}, ())
