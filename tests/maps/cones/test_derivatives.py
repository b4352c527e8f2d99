"""Derivatives of projections: against differences, finite and symmetric everywhere, second ones right or refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from maps.cones import Box, Cone, DecomposedCone, Exponential, NuclearNorm, Parts, Power, SecondOrder
from tests.maps.cones.samples import CONES, ONCE, SMOOTH, awkward, named, normal


def jacobians(cone: Cone, z: Tensor) -> Tensor:
    """(B, k, k)."""
    return vmap(jacrev(lambda row: cone.project(row[None])[0]))(z)


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_equal_to_differences(cone: Cone) -> None:
    z = normal(cone, 2).requires_grad_()
    for project in (cone.project, cone.project_dual):
        assert torch.autograd.gradcheck(project, z, eps=1e-6, atol=1e-8, rtol=1e-6, check_forward_ad=True)


@pytest.mark.parametrize("cone", [Exponential(), Power(0.2), NuclearNorm(3, 2)], ids=named)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_equal_to_differences_at_other_scales(cone: Cone, scale: float) -> None:
    z = normal(cone, 10, seed=3)
    step = 1e-6
    columns = [cone.project(scale * (z + step * e)) - cone.project(scale * (z - step * e)) for e in torch.eye(cone.dim)]
    differences = torch.stack(columns, 2) / (2 * step * scale)
    assert (jacobians(cone, scale * z) - differences).abs().max() < 1e-6


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_a_symmetric_contraction_everywhere(cone: Cone) -> None:
    """Its spectrum is in [0, 1] and DP(z) z = P(z), also on and next to boundaries, at ties and at the apex."""
    z = awkward(cone)
    derivative = jacobians(cone, z)
    assert torch.isfinite(derivative).all()
    assert (derivative - derivative.mT).abs().max() < 1e-12
    values = torch.linalg.eigvalsh(derivative)
    assert values.min() > -1e-12
    assert values.max() < 1 + 1e-12
    size = torch.linalg.vector_norm(z, dim=1) + torch.finfo().tiny
    euler = torch.linalg.vector_norm((derivative @ z[:, :, None])[:, :, 0] - cone.project(z), dim=1)
    assert (euler / size).max() < 1e-13


@pytest.mark.parametrize("cone", SMOOTH, ids=named)
def test_second_derivatives(cone: Cone) -> None:
    z = normal(cone, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(cone.project, z, eps=1e-6, atol=1e-7)
    weights = normal(cone, 1, seed=9)[0]
    value: Callable[[Tensor], Tensor] = lambda row: cone.project(row[None])[0] @ weights  # noqa: E731
    by_reverse = vmap(jacrev(grad(value)))(z.detach())
    assert torch.allclose(vmap(hessian(value))(z.detach()), by_reverse, atol=1e-10)
    assert torch.allclose(vmap(jacfwd(jacfwd(value)))(z.detach()), by_reverse, atol=1e-10)


@pytest.mark.parametrize("cone", ONCE, ids=named)
def test_second_derivatives_are_refused(cone: Cone) -> None:
    """By every route; a silent zero would be worse."""
    z, v = normal(cone, 2), normal(cone, 2, seed=1)
    value: Callable[[Tensor], Tensor] = lambda z: (v * cone.project(z)).sum()  # noqa: E731
    tracked = z.clone().requires_grad_()
    (first,) = torch.autograd.grad(value(tracked), tracked, create_graph=True)
    routes: list[Callable[[], object]] = [
        lambda: torch.autograd.grad(first.sum(), tracked),
        lambda: hessian(value)(z),
        lambda: grad(lambda z: grad(value)(z).sum())(z),
        lambda: jvp(grad(value), (z,), (v,)),
        lambda: jvp(lambda z: vjp(cone.project, z)[1](v)[0], (z,), (v,)),
        lambda: jvp(lambda z: jvp(cone.project, (z,), (v,))[1], (z,), (v,)),
        lambda: grad(lambda z: jvp(cone.project, (z,), (v,))[1].sum())(z),
        lambda: vmap(hessian(lambda row: cone.project(row[None]).sum()))(z),
    ]
    for route in routes:
        with pytest.raises(RuntimeError, match="second derivatives of the projection onto"):
            route()


def test_the_derivative_can_be_differentiated_in_its_direction() -> None:
    """In which it is linear."""
    cone = NuclearNorm(2, 2)
    z, v, w = normal(cone, 2), normal(cone, 2, seed=1), normal(cone, 2, seed=2)
    pull = vjp(cone.project, z)[1]
    assert torch.allclose(jvp(pull, (v,), (w,))[1][0], pull(w)[0])
    push: Callable[[Tensor], Tensor] = lambda v: jvp(cone.project, (z,), (v,))[1]  # noqa: E731
    assert torch.allclose(jvp(push, (v,), (w,))[1], push(w))
    assert torch.allclose(grad(lambda v: (w * push(v)).sum())(v), push(w))


def test_where_a_box_is_pinched() -> None:
    """At t = 0 bounds of both signs leave no room, and equal bounds never do."""
    z = torch.tensor([[-1.0, 0.0, 0.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    expected = torch.tensor([[[0.0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0.8, 0, 0.4], [0, 1, 0], [0.4, 0, 0.2]]])
    assert torch.allclose(jacobians(Box([-1.0, 0.5], [2.0, 0.5]), z), expected.to(z), atol=1e-15)


def test_power_where_z_vanishes() -> None:
    """The limit of the derivative in z depends on the exponent: 0 below a half, 1 above, between at it."""
    z = torch.tensor([[2.0, -1.0, 0.0]], dtype=torch.float64)
    for exponent, limit in ((0.3, 0.0), (0.5, 0.5), (0.8, 1.0)):
        assert torch.allclose(jacobians(Power(exponent), z)[0], torch.diag(torch.tensor([1.0, 0, limit])).to(z))
    value: Callable[[Tensor], Tensor] = lambda z: Power(0.5).project(z)[0] @ torch.tensor([1.0, 2, 3]).to(z)  # noqa: E731
    at, near = hessian(value)(z), hessian(value)(z + torch.tensor([0, 0, 1e-5]))
    assert torch.allclose(at, near, atol=1e-4)


def test_exponential_where_two_coordinates_are_small() -> None:
    """Whose root is found relative to them: a search content with round-off of the third loses their digits."""
    z = torch.tensor([[2.831345870944418e-11, -6.892394295386615e-10, 0.6], [1.6e-41, -3.2e-40, 3.3e-30]])
    z = torch.cat([z.double() * (1 + 0.1 * k) for k in range(20)])
    derivative = jacobians(Exponential(), z)
    assert (derivative - derivative.mT).abs().max() < 1e-12


class Sorted(DecomposedCone):
    """x_1 >= x_2 as a user might write it: halves of sum and difference, the latter at least 0."""

    def decompose(self, z: Tensor) -> Parts:
        return z.sum(1) / 2, (z[:, 0] - z[:, 1]) / 2

    def point(self, parts: Parts) -> Tensor:
        return torch.stack([parts[0] + parts[1].relu(), parts[0] - parts[1].relu()], 1)

    def derivative(self, parts: Parts, v: Tensor) -> Tensor:
        mean, half = v.sum(1) / 2, torch.where(parts[1] > 0, (v[:, 0] - v[:, 1]) / 2, 0.0)
        return torch.stack([mean + half, mean - half], 1)


def test_a_cone_of_your_own() -> None:
    cone = Sorted(2)
    z = normal(cone, 6).requires_grad_()
    assert torch.autograd.gradcheck(cone.project, z, check_forward_ad=True, check_batched_grad=True)
    with pytest.raises(RuntimeError, match=r"Sorted\(dim=2\)"):
        hessian(lambda z: (cone.project(z) ** 2).sum())(z.detach())


@pytest.mark.parametrize("point", [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1e-200, 0.0]])
def test_second_derivatives_of_the_second_order_cone_are_finite_on_its_axis(point: list[float]) -> None:
    z = torch.tensor(point, dtype=torch.float64)

    def project(z: torch.Tensor) -> torch.Tensor:
        return SecondOrder(3).project(z[None])[0]

    for outer, inner in itertools.product((jacrev, jacfwd), repeat=2):
        assert bool(torch.isfinite(outer(inner(project))(z)).all())
