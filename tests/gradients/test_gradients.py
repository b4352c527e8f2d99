"""Gradients through solve: implicit, unrolled and truncated agree with central differences, alone and under vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.gradients.linear_solver import gmres
from maps.affine import Affine, AffineProblem, RandomAffine
from maps.elastic_net import ElasticNetProblem, RandomElasticNet

MODES = ["implicit", "unroll", fp.Truncated(400)]


def central(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of a scalar function, entry by entry."""
    flat = []
    for i in range(at.numel()):
        e = torch.zeros_like(at).reshape(-1)
        e[i] = step
        e = e.reshape(at.shape)
        flat.append((function(at + e) - function(at - e)) / (2 * step))
    return torch.stack(flat).reshape(at.shape)


def affine(gradient: Any, accelerator: str | None = "anderson-2") -> tuple[Callable[..., Tensor], AffineProblem]:
    """A functional of the solution of x = A x + b as a function of (A, b), for one instance."""
    family = RandomAffine(4, rate=0.7)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def loss(A: Tensor, b: Tensor) -> Tensor:
        options: Any = {"tolerance": 1e-13, "max_evaluations": 120, "gradient": gradient}
        return (fp.solve(family.map, AffineProblem(A, b), accelerator, **options).x * weights).sum()

    return loss, problem


def elastic(gradient: Any) -> tuple[Callable[..., Tensor], ElasticNetProblem]:
    """The same for the elastic net, as a function of (A, b, mu)."""
    family = RandomElasticNet(4, step=1.0)
    A, b, _ = family.sample(3, generator=torch.Generator().manual_seed(5))
    A = A + 2 * torch.eye(4, dtype=torch.float64)  # converges quickly
    problem = ElasticNetProblem(A, b, torch.full((3,), 0.3, dtype=torch.float64))
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def loss(A: Tensor, b: Tensor, mu: Tensor) -> Tensor:
        options: Any = {"tolerance": 1e-12, "max_evaluations": 600, "gradient": gradient}
        return (fp.solve(family.map, ElasticNetProblem(A, b, mu), None, **options).x * weights).sum()

    return loss, problem


@pytest.mark.parametrize("build", [affine, elastic])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_grad_equals_central_differences(build: Callable[..., Any], mode: Any) -> None:
    loss, problem = build(mode)
    plain, _ = build(None)
    one = [leaf[0] for leaf in problem]
    gradients = torch.func.grad(loss, argnums=tuple(range(len(one))))(*one)
    for i, gradient in enumerate(gradients):
        expected = central(lambda leaf, i=i: plain(*one[:i], leaf, *one[i + 1 :]), one[i])
        assert expected.abs().max() > 1e-2, "a zero derivative must not pass"
        assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("build", [affine, elastic])
@pytest.mark.parametrize("mode", ["implicit", "unroll"])
def test_vmap_of_grad_equals_grad_of_each(build: Callable[..., Any], mode: Any) -> None:
    loss, problem = build(mode)
    mapped = torch.func.vmap(torch.func.grad(loss, argnums=1), in_dims=(None, *[0] * (len(problem) - 1)))
    rows = mapped(problem[0][0], *problem[1:])
    for i in range(3):
        alone = torch.func.grad(loss, argnums=1)(problem[0][0], *(leaf[i] for leaf in problem[1:]))
        assert torch.allclose(rows[i], alone, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("mode", [None, "implicit", "unroll"])
def test_vmap_of_solve(mode: Any) -> None:
    loss, problem = affine(mode)
    values = torch.func.vmap(loss)(*problem)
    expected = torch.stack([loss(problem.A[i], problem.b[i]) for i in range(3)])
    assert torch.allclose(values, expected, rtol=1e-9)


def test_vmap_over_a_shared_leaf_gives_each_its_own_gradient() -> None:
    family = RandomAffine(3, rate=0.6)
    A, b = family.sample(2, generator=torch.Generator().manual_seed(1))
    batch = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def loss(A: Tensor, b: Tensor) -> Tensor:
        return fp.solve(family.map, AffineProblem(A, b), tolerance=1e-12, gradient="implicit").x.square().sum()

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(A[0], batch)
    for i in range(2):
        assert torch.allclose(rows[i], torch.func.grad(loss)(A[0], batch[i]), rtol=1e-7)
    assert b.shape == (2, 3)


def test_backward_of_autograd_and_of_functions_agree() -> None:
    loss, problem = affine("implicit")
    b = problem.b[0].clone().requires_grad_()
    loss(problem.A[0], b).backward()
    assert torch.allclose(b.grad, torch.func.grad(loss, argnums=1)(problem.A[0], problem.b[0]))


def test_jacrev_is_the_known_inverse() -> None:
    _, problem = affine(None)
    map = Affine(4)
    jacobian = torch.func.jacrev(
        lambda b: fp.solve(map, AffineProblem(problem.A[0], b), "anderson-2", tolerance=1e-12, gradient="implicit").x
    )(problem.b[0])
    assert torch.allclose(jacobian, torch.linalg.inv(torch.eye(4, dtype=torch.float64) - problem.A[0]), rtol=1e-8)


def test_output_carries_the_gradient_too() -> None:
    _, problem = affine(None)
    for mode in MODES:

        def loss(b: Tensor, mode: Any = mode) -> Tensor:
            options: Any = {"tolerance": 1e-13, "max_evaluations": 200, "gradient": mode}
            return fp.solve(Affine(4), AffineProblem(problem.A[0], b), **options).output.square().sum()

        assert torch.allclose(torch.func.grad(loss)(problem.b[0]), central(loss, problem.b[0]), rtol=1e-6)


def test_dropped_gradients_are_refused() -> None:
    problem = AffineProblem(0.5 * torch.eye(2), torch.ones(3, 2, requires_grad=True))
    with pytest.raises(ValueError, match=r'gradient: b require.*"implicit"'):
        fp.solve(Affine(2), problem, tolerance=1e-5)
    with torch.no_grad():
        assert not fp.solve(Affine(2), problem, tolerance=1e-5).x.requires_grad
    with pytest.raises(ValueError, match="gradient: b"):
        torch.func.grad(lambda b: fp.solve(Affine(2), AffineProblem(0.5 * torch.eye(2), b), tolerance=1e-5).x.sum())(
            torch.ones(2)
        )


def test_gradient_of_the_start_is_refused() -> None:
    start = torch.zeros(3, 2, requires_grad=True)
    problem = AffineProblem(0.5 * torch.eye(2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="start: its gradient"):
        fp.solve(Affine(2), problem, start=start, tolerance=1e-5, gradient="implicit")
    fp.solve(Affine(2), problem, start=start, tolerance=1e-5, gradient="unroll").x.sum().backward()
    assert (start.grad != 0).all()


def test_second_derivatives_are_refused_not_zero() -> None:
    loss, problem = affine("implicit")
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.func.grad(lambda b: torch.func.grad(loss, argnums=1)(problem.A[0], b).square().sum())(problem.b[0])


def test_unconverged_instances_are_named() -> None:
    b = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    rates = torch.tensor([0.1, 0.99, 0.1], dtype=torch.float64)
    A = rates[:, None, None] * torch.eye(2, dtype=torch.float64)
    solution = fp.solve(Affine(2), AffineProblem(A, b), tolerance=1e-9, max_evaluations=20, gradient="implicit")
    with pytest.warns(fp.AdjointWarning, match=r"instance\(s\) 1 cannot be trusted"):
        solution.x.sum().backward()


def test_singular_adjoint_is_reported() -> None:
    A = torch.stack([torch.eye(2, dtype=torch.float64), 0.5 * torch.eye(2, dtype=torch.float64)])
    map = Affine(2)
    context = map.setup(AffineProblem(A, torch.zeros(2, 2, dtype=torch.float64)))
    x = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.warns(fp.AdjointWarning, match=r"instance\(s\) 0 "):
        gradient = map.implicit_vjp(x, context, torch.ones_like(x))
    assert torch.allclose(gradient.b[1], torch.full((2,), 2.0, dtype=torch.float64))


def test_invalid_rows_have_no_gradient_and_spoil_no_other() -> None:
    _, problem = affine(None)
    b = problem.b.clone()
    b[1, 0] = torch.nan
    b.requires_grad_()
    options: Any = {"tolerance": 1e-12, "gradient": "implicit", "on_invalid": "mark"}
    solution = fp.solve(Affine(4), AffineProblem(problem.A, b), "anderson-2", **options)
    solution.x[[0, 2]].sum().backward()
    expected = torch.linalg.solve(torch.eye(4, dtype=torch.float64) - problem.A.mT, torch.ones(3, 4).double())
    assert torch.allclose(b.grad[[0, 2]], expected[[0, 2]], rtol=1e-8)
    assert (b.grad[1] == 0).all()


def test_gmres_solves_and_reports() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(5, 30, 30, generator=generator, dtype=torch.float64) + 8 * torch.eye(30, dtype=torch.float64)
    rhs = torch.randn(5, 30, generator=generator, dtype=torch.float64)
    rhs[3] = 0
    solved = gmres(lambda v: (matrix @ v[:, :, None])[:, :, 0], rhs, rtol=1e-12)
    assert torch.allclose(solved.x, torch.linalg.solve(matrix, rhs), rtol=1e-9)
    assert (solved.residual <= 1e-12).all()
    short = gmres(lambda v: (matrix @ v[:, :, None])[:, :, 0], rhs, rtol=1e-12, max_products=5)
    true = torch.linalg.vector_norm(rhs - (matrix @ short.x[:, :, None])[:, :, 0], dim=1)
    assert torch.allclose(short.residual[:3] * torch.linalg.vector_norm(rhs, dim=1)[:3], true[:3])
    assert (short.residual[:3] > 1e-12).all()
