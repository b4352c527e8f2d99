"""The search for roots, and roots as functions of what they depend on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import hessian, vmap

from maps.cones.calculus.roots import implicit_root, root_operation


def cubic(root: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Root^3 + a root - b, which takes many steps where a and b are tiny."""
    return root**3 + a * root - b, 3 * root**2 + a


find = root_operation("test_cubic", cubic, lambda a, b: (torch.full_like(a, -10.0), torch.full_like(a, 11.0)), 2)


def data(rows: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, rows, generator=draw, dtype=torch.float64)).unbind()
    return a.abs(), 10 * b


def test_roots() -> None:
    a, b = data(300)
    root = find(a, b)
    assert (cubic(root, a, b)[0] / (1 + b.abs())).abs().max() < 1e-14


def blurred(root: Tensor, slow: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(root - b)^3, whose expansion drowns in round-off close to b; steps are `slow` times too short."""
    return root**3 - 3 * root**2 * b + 3 * root * b**2 - b**3, 3 * slow * (root - b) ** 2


find_blurred = root_operation("test_blurred", blurred, lambda slow, b: (b - 1, b + 1.5), 2)


def test_elements_stop_by_themselves() -> None:
    """Bit by bit: others that take longer, or are NaN, change nothing."""
    b = data(500)[1]
    alone = find_blurred(torch.ones_like(b), b)
    for others in (torch.full_like(b, 5.0), torch.full_like(b, torch.nan)):
        beside = find_blurred(torch.cat([torch.ones_like(b), others]), torch.cat([b, b]))
        assert torch.equal(beside[:500], alone)


def test_under_vmap() -> None:
    a, b = data(6)
    a, b = a.unflatten(0, (2, 3)), b.unflatten(0, (2, 3))
    assert torch.equal(vmap(find, in_dims=1, out_dims=1)(a, b), find(a, b))
    assert torch.equal(vmap(find, in_dims=(None, 0))(a[0], b), find(a[:1].expand(2, 3), b))


def test_implicit_derivatives() -> None:
    """Of the cube root: first and second, as if there were a formula."""

    def cube_root(b: Tensor) -> Tensor:
        zero = torch.zeros_like(b)
        root = find(zero, b)
        return implicit_root(root, lambda root: root**3 - b, 3 * root**2)

    b = torch.tensor([0.5, 3.0, 8.0], dtype=torch.float64)
    assert torch.allclose(cube_root(b), b ** (1 / 3))
    for value in b:
        assert torch.allclose(torch.func.grad(cube_root)(value), value ** (-2 / 3) / 3)
        assert torch.allclose(hessian(cube_root)(value), -2 / 9 * value ** (-5 / 3))
