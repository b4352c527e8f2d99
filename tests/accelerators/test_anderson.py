"""Anderson acceleration against its theory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fixedpoint as fp
from accelerators import AndersonI, AndersonII
from maps.affine import Affine, AffineProblem, RandomAffine
from tests.accelerators.reference import anderson

TYPES = [AndersonI, AndersonII]


def affine(size: int, batch: int = 4, rate: float = 0.9) -> AffineProblem:
    return RandomAffine(size, rate).sample(batch, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("size", [1, 2, 5, 10])
def test_ends_within_dimension_plus_two_on_affine_maps(kind: Any, size: int) -> None:
    problem = (
        affine(size) if size > 1 else AffineProblem(torch.full((4, 1, 1), 0.9).double(), torch.ones(4, 1).double())
    )
    trajectory = fp.unroll(Affine(size), problem, kind(memory=size), steps=size + 3)
    assert (trajectory.residual[size + 2] <= 1e-9 * trajectory.residual[0]).all()


@pytest.mark.parametrize("kind", TYPES)
def test_follows_a_plain_reference(kind: Any) -> None:
    """Against a one-instance NumPy version that solves the least-squares problem afresh at every step."""
    problem = affine(30, rate=0.99)
    trajectory = fp.unroll(Affine(30), problem, kind(memory=4), steps=25)
    for i in range(4):
        A, b = problem.A[i].numpy(), problem.b[i].numpy()
        points = anderson(lambda x, A=A, b=b: A @ x + b, torch.zeros(30).double().numpy(), 4, 25, kind is AndersonI)
        for k, x in enumerate(points):
            assert torch.allclose(trajectory.x[k, i], torch.from_numpy(x), rtol=1e-5, atol=1e-6), k


@pytest.mark.parametrize("kind", TYPES)
def test_invariant_to_scaling_and_rotation(kind: Any) -> None:
    problem = affine(8, rate=0.99)
    base = fp.unroll(Affine(8), problem, kind(memory=5), steps=15).x
    for scale in (1e-6, 1e6):
        scaled = fp.unroll(Affine(8), problem._replace(b=scale * problem.b), kind(memory=5), steps=15).x
        assert torch.allclose(scaled / scale, base, rtol=1e-6, atol=1e-8)
    Q = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    turned = AffineProblem(Q @ problem.A @ Q.mT, problem.b @ Q.mT)
    assert torch.allclose(fp.unroll(Affine(8), turned, kind(memory=5), steps=15).x @ Q, base, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", TYPES)
def test_metric_is_a_change_of_coordinates(kind: Any) -> None:
    """With metric W the method does in x what the Euclidean one does in W^(1/2) x."""
    problem = affine(6, rate=0.99)
    weights = torch.tensor([1e-2, 1.0, 3.0, 10.0, 0.5, 100.0], dtype=torch.float64)

    class Weighted(Affine):
        def metric(self, context: Any) -> torch.Tensor:
            return weights.expand(context.rows.b.shape)

    root = weights.sqrt()
    changed = AffineProblem(root[:, None] * problem.A / root, root * problem.b)
    ours = fp.unroll(Weighted(6), problem, kind(memory=3), steps=12).x
    theirs = fp.unroll(Affine(6), changed, kind(memory=3), steps=12).x / root
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)
    euclidean = fp.unroll(Weighted(6), problem, kind(memory=3, norm="euclidean"), steps=12).x
    assert torch.equal(euclidean, fp.unroll(Affine(6), problem, kind(memory=3), steps=12).x)


@pytest.mark.parametrize("kind", TYPES)
def test_start_and_interval(kind: Any) -> None:
    problem = affine(8)
    plain = fp.unroll(Affine(8), problem, None, steps=12).x
    late = fp.unroll(Affine(8), problem, kind(start=4), steps=12).x
    assert torch.allclose(late[:6], plain[:6], rtol=1e-13, atol=1e-14), "4 plain evaluations, one more to have a pair"
    assert not torch.allclose(late[6], plain[6])
    sparse = fp.unroll(Affine(8), problem, kind(interval=3), steps=12)
    steps = [bool(torch.equal(sparse.x[k + 1], sparse.fx[k])) for k in range(11)]
    assert steps == [(k + 1) % 3 != 0 for k in range(11)]


def test_relaxation() -> None:
    """x+ = f(x) - (S + Y) gamma - (1 - relaxation) (r - Y gamma), with gamma of the unrelaxed method."""
    problem = affine(8)
    half = fp.unroll(Affine(8), problem, AndersonII(memory=1, relaxation=0.5), steps=3)
    x, fx = half.x, half.fx
    r = fx - x
    assert torch.allclose(x[1], x[0] + 0.5 * r[0]), "without a pair it is a damped step"
    s, y = x[1] - x[0], r[1] - r[0]
    gamma = ((y * r[1]).sum(1) / (y * y).sum(1))[:, None]
    assert torch.allclose(x[2], x[1] - s * gamma + 0.5 * (r[1] - y * gamma), rtol=1e-8)


@pytest.mark.parametrize("kind", TYPES)
def test_differentiable(kind: Any) -> None:
    problem = affine(4, batch=2)

    def last(b: torch.Tensor) -> torch.Tensor:
        return fp.unroll(Affine(4), AffineProblem(problem.A, b), kind(memory=2), steps=5).fx[-1]

    assert torch.autograd.gradcheck(last, problem.b.clone().requires_grad_(), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "memory"),
        ({"regularization": -1.0}, "regularization"),
        ({"relaxation": 2.0}, "relaxation"),
        ({"interval": 0}, "interval"),
        ({"start": -1}, "start"),
        ({"norm": "energy"}, "norm"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AndersonII(**options)
