"""Projections under torch.func and torch.compile, in float32, beside NaN, and of points of the wrong shape."""

from __future__ import annotations

import copy
import shutil
import warnings

import pytest
import torch
from torch.func import jacfwd, jacrev, vmap

import fixedpoint as fp
from maps.cones import PSD, Cone, Exponential, NuclearNorm, Power, ProductCone, SecondOrder, Zero
from tests.maps.cones.samples import CONES, INF, MIXED, awkward, named, normal

EVERY = [*CONES, ProductCone(MIXED)]


@pytest.mark.parametrize("cone", EVERY, ids=named)
def test_function_transforms_agree(cone: Cone) -> None:
    z = normal(cone, 3)
    assert torch.allclose(vmap(cone.project)(z[:, None])[:, 0], cone.project(z), rtol=0, atol=1e-14)
    pairs = normal(cone, 6).unflatten(0, (3, 2))
    expected = torch.stack([cone.project(pairs[:, i]) for i in range(2)])
    assert torch.allclose(vmap(cone.project, in_dims=1)(pairs), expected, rtol=0, atol=1e-14)
    by_rows = torch.autograd.functional.jacobian(cone.project, z)
    assert torch.allclose(jacrev(cone.project)(z), by_rows, rtol=0, atol=1e-13)
    assert torch.allclose(jacfwd(cone.project)(z), by_rows, rtol=0, atol=1e-13)
    each = vmap(jacrev(lambda row: cone.project(row[None])[0]))(z)
    assert torch.allclose(torch.stack([by_rows[i, :, i] for i in range(3)]), each, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("cone", "backend"),
    [
        (SecondOrder(3), "eager"),
        (PSD(2), "eager"),
        (PSD(2), "aot_eager"),
        (Exponential(), "aot_eager"),
        (Power(0.3), "eager"),
        pytest.param(ProductCone(MIXED), "aot_eager", marks=pytest.mark.slow),
    ],
    ids=lambda value: named(value) if isinstance(value, Cone) else value,
)
def test_compiled(cone: Cone, backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(cone.project, backend=backend, fullgraph=True)
    z = normal(cone, 3)
    assert torch.allclose(compiled(z), cone.project(z), rtol=0, atol=1e-13)
    tracked, weights = z.clone().requires_grad_(), normal(cone, 3, seed=1)
    (found,) = torch.autograd.grad((weights * compiled(tracked)).sum(), tracked)
    (expected,) = torch.autograd.grad((weights * cone.project(tracked)).sum(), tracked)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the inductor backend needs a C++ compiler: install g++")
@pytest.mark.parametrize("cone", [NuclearNorm(2, 3), Exponential()], ids=named)
def test_compiled_by_inductor(cone: Cone) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        test_compiled(cone, "inductor")


@pytest.mark.parametrize("cone", EVERY, ids=named)
def test_single_precision_is_kept(cone: Cone) -> None:
    z = normal(cone, 100).float()
    p = cone.project(z)
    assert p.dtype == torch.float32
    assert (p - cone.project(z.double())).abs().max() < 2e-6
    tracked = z[:3].requires_grad_()
    (found,) = torch.autograd.grad(cone.project(tracked).sum(), tracked)
    assert found.dtype == torch.float32
    wide = z[:3].detach().double().requires_grad_()
    assert (found - torch.autograd.grad(cone.project(wide).sum(), wide)[0]).abs().max() < 1e-4


@pytest.mark.parametrize("cone", EVERY, ids=named)
def test_rows_do_not_touch_each_other(cone: Cone) -> None:
    """Neither values nor derivatives, bit by bit at one batch size, whatever the others are."""
    z = awkward(cone)[:50]
    poisoned = z.clone()
    poisoned[1], poisoned[2, -1], poisoned[3, 0], poisoned[4] = torch.nan, INF, -INF, 0.0
    kept = torch.arange(5, 50)
    for points in (z, poisoned):
        points.requires_grad_()
    (here,) = torch.autograd.grad(cone.project(z)[kept].sum(), z)
    (there,) = torch.autograd.grad(cone.project(poisoned)[kept].sum(), poisoned)
    assert torch.equal(cone.project(z)[kept], cone.project(poisoned)[kept])
    assert torch.equal(here[kept], there[kept])
    assert cone.project(poisoned)[1].isnan().any()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(cone.project(z.detach()[order]), cone.project(z.detach())[order], rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("cone", [Exponential(), Power(0.3)], ids=named)
def test_a_search_does_not_wait_for_others(cone: Cone) -> None:
    """Rows that take many steps beside them do not change the last bit of others."""
    easy, hard = normal(cone, 500), awkward(cone)[40:540]
    assert torch.equal(cone.project(torch.cat([easy, hard]))[:500], cone.project(torch.cat([easy, 0 * hard]))[:500])


@pytest.mark.parametrize("cone", [*EVERY, PSD(0), Zero(0)], ids=named)
def test_other_shapes(cone: Cone) -> None:
    assert cone.project(torch.zeros(0, cone.dim)).shape == (0, cone.dim)
    assert torch.equal(copy.deepcopy(cone).project(normal(cone, 2)), cone.project(normal(cone, 2)))
    for wrong in (torch.zeros(2, cone.dim + 1), torch.zeros(cone.dim), torch.zeros(1, 2, cone.dim)):
        for project in (cone.project, cone.project_dual):
            with pytest.raises(
                ValueError, match=rf"z: {type(cone).__name__}\(.*expects points of shape \(B, {cone.dim}\)"
            ):
                project(wrong)


def test_wrong_shapes_of_matrices_are_explained() -> None:
    with pytest.raises(ValueError, match=r"PSD\(order=3\).*\(B, 6\) \(a matrix of order k has k \(k \+ 1\) / 2 rows\)"):
        PSD(3).project(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"s lists orders k, and such a block has k \(k \+ 1\) / 2 rows"):
        ProductCone({"s": [3]}).project(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("zero", {"dim": -1}, "dim: expected a whole number"),
        ("second-order", {"dim": 2.5}, "dim: expected a whole number"),
        ("psd", {"order": "x"}, "order: expected a whole number"),
        ("nuclear-norm", {"rows": 2, "columns": True}, "columns: expected a whole number"),
        ("nuclear-norm", {"rows": 2, "columns": 2, "slope": 0.0}, "slope: expected a number from 1e-6"),
        ("l1-norm", {"size": 2, "slope": "steep"}, "slope: expected a number from 1e-6"),
        ("power", {"exponent": 1.5}, "exponent: expected a number between -1 and 1, got 1.5"),
        ("power", {"exponent": float("nan")}, "exponent: expected a number between -1 and 1, got nan"),
        ("box", {"lower": [0.0, 2.0], "upper": [1.0, 1.0]}, "lower: expected at most upper at index 1, got 2.0"),
        ("box", {"lower": [float("nan")], "upper": [1.0]}, "lower: expected at most upper at index 0"),
        ("box", {"lower": [INF], "upper": [INF]}, "lower: expected at most upper at index 0"),
        ("box", {"lower": [0.0], "upper": []}, "lower: expected as many bounds as upper, 0, got 1"),
    ],
)
def test_arguments_that_make_no_cone(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.cones.create(name, **options)
