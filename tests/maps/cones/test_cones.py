"""The laws of projections, on random and on awkward points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

import fixedpoint as fp
from maps.cones import Cone, Nonnegative, ProductCone, SecondOrder, Zero

SPECS = [{"z": 2, "l": 3}, {"q": [4]}, {"q": [1, 0, 2, 3, 3]}, {"z": 1, "l": 2, "q": [3, 3, 5]}, {"l": 1}]
CONES: list[Cone] = [Zero(3), Nonnegative(3), SecondOrder(1), SecondOrder(2), SecondOrder(5), *map(ProductCone, SPECS)]
ids = [f"{type(c).__name__}-{c.dim}" for c in CONES]

NUMBERS = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, 1.0, -1.0, 1e-6, -1e-6, 1e6]))


def points(cone: Cone) -> st.SearchStrategy[Tensor]:
    return arrays(np.float64, (4, cone.dim), elements=NUMBERS).map(torch.from_numpy)


@pytest.mark.parametrize("cone", CONES, ids=ids)
@given(data=st.data())
def test_projection_laws(cone: Cone, data: st.DataObject) -> None:
    x, y = data.draw(points(cone)), data.draw(points(cone))
    p, q = cone.project(x), cone.project_dual(-x)
    size = 1 + x.abs().max()
    assert (cone.project(p) - p).abs().max() <= 1e-12 * size, "idempotent"
    assert (cone.project(3.5 * x) - 3.5 * p).abs().max() <= 1e-12 * size, "positively homogeneous"
    assert (p - q - x).abs().max() <= 1e-12 * size, "Moreau"
    assert (p * q).sum(1).abs().max() <= 1e-11 * size**2, "orthogonal parts"
    gap = torch.linalg.vector_norm(p - cone.project(y), dim=1) - torch.linalg.vector_norm(x - y, dim=1)
    assert gap.max() <= 1e-11 * (size + y.abs().max()), "nonexpansive"
    assert ((p - x) * (cone.project(y) - p)).sum(1).min() >= -1e-10 * size * (size + y.abs().max()), "nearest point"


@pytest.mark.parametrize("cone", CONES, ids=ids)
@given(data=st.data())
def test_derivative_is_finite_symmetric_and_a_contraction(cone: Cone, data: st.DataObject) -> None:
    x = data.draw(points(cone))[:1]
    jacobian = torch.func.jacrev(lambda v: cone.project(v[None])[0])(x[0])
    assert torch.isfinite(jacobian).all()
    assert (jacobian - jacobian.mT).abs().max() <= 1e-9
    values = torch.linalg.eigvalsh(jacobian)
    assert values.min() >= -1e-9
    assert values.max() <= 1 + 1e-9
    assert (jacobian @ x[0] - cone.project(x)[0]).abs().max() <= 1e-9 * (1 + x.abs().max()), "Euler"


@pytest.mark.parametrize("cone", CONES, ids=ids)
def test_derivative_equals_central_differences(cone: Cone) -> None:
    x = torch.randn(6, cone.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(cone.project, x.requires_grad_(), eps=1e-6, atol=1e-8)
    assert torch.autograd.gradcheck(cone.project_dual, x, eps=1e-6, atol=1e-8)
    one = x.detach()[:, None]
    assert torch.allclose(torch.func.vmap(cone.project)(one)[:, 0], cone.project(x.detach()))


def test_second_order_branches() -> None:
    cone = SecondOrder(3)
    z = torch.tensor([[5.0, 3.0, 4.0], [6.0, 3.0, 4.0], [-5.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[5.0, 3.0, 4.0], [6.0, 3.0, 4.0], [0.0, 0.0, 0.0], [2.5, 1.5, 2.0], [0.0, 0.0, 0.0]])
    assert torch.equal(cone.project(z), expected)


def test_product_layout() -> None:
    cone = ProductCone({"q": [3, 3, 2], "z": 1, "l": 2})
    assert cone.dim == 11
    assert [(type(r.cone).__name__, r.start, r.blocks) for r in cone.runs] == [
        ("Zero", 0, 1),
        ("Nonnegative", 1, 1),
        ("SecondOrder", 3, 2),
        ("SecondOrder", 9, 1),
    ]
    assert cone.equalities == 1
    z = torch.randn(2, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [Zero(1).project(z[:, :1]), Nonnegative(2).project(z[:, 1:3])]
    parts += [SecondOrder(k).project(z[:, a : a + k]) for a, k in ((3, 3), (6, 3), (9, 2))]
    assert torch.equal(cone.project(z), torch.cat(parts, 1))


def test_scaling_is_shared_within_blocks() -> None:
    cone = ProductCone({"l": 2, "q": [2, 3]})
    d = torch.tensor([[1.0, 2.0, 3.0, 5.0, 1.0, 2.0, 6.0]])
    assert cone.share_within_blocks(d, "max").tolist() == [[1, 2, 5, 5, 6, 6, 6]]
    assert cone.share_within_blocks(d, "mean").tolist() == [[1, 2, 4, 4, 3, 3, 3]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"zz": 3}, "unknown key 'zz'.*did you mean 'z'"),
        ({"f": 3}, "unknown key 'f'"),
        ({"l": -1}, r"cones\['l'\]: expected a whole number"),
        ({"l": 2.5}, r"cones\['l'\]"),
        ({"l": [2]}, r"cones\['l'\]"),
        ({"q": [3, -1]}, r"cones\['q'\]: expected a list"),
        ({"q": ["a"]}, r"cones\['q'\]"),
        ({"z": True}, r"cones\['z'\]"),
    ],
)
def test_bad_specs(spec: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProductCone(spec)


def test_registered() -> None:
    assert fp.cones.create("second-order", dim=3).project(torch.zeros(1, 3)).shape == (1, 3)
    with pytest.raises(ValueError, match="dim"):
        fp.cones.create("zero", dim=-1)
