"""Variables, duals and values are differentiable with respect to the parameters, and the derivatives are right."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from maps.scs.cvxpy import CvxpyFamily
from maps.scs.cvxpy.solution import CvxpySolution
from tests.maps.scs.cvxpy.examples import EXAMPLES, Example, draw

EXACT: Any = {"eps_abs": 1e-10, "eps_rel": 1e-10, "scale": 1.0}
STEP = 1e-4


def weighed(solution: CvxpySolution) -> Tensor:
    """(B,) a random combination of all that comes out."""
    generator, total = torch.Generator().manual_seed(5), solution.value
    for part in [*solution.variables, *solution.duals]:
        for tensor in part if isinstance(part, list) else [part]:
            assert tensor is not None
            weights = torch.randn(tensor.shape[1:], generator=generator, dtype=torch.float64)
            total = total + (weights * tensor).reshape(len(tensor), -1).sum(1)
    return total


def direction(example: Example, seed: int) -> list[Tensor]:
    """A random change of all values that keeps their structure."""
    generator, found = torch.Generator().manual_seed(seed), []
    for parameter, value in zip(example.parameters, example.values, strict=True):
        change = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if parameter.attributes["diag"]:
            change = change * torch.eye(value.shape[-1])
        elif parameter.attributes["symmetric"] or parameter.attributes["PSD"]:
            change = change + change.mT
        found.append(change)
    return found


def leaves(example: Example) -> list[Tensor]:
    return [torch.tensor(value, requires_grad=True) for value in example.values]


@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_are_central_differences(name: str, quadratic: bool) -> None:
    example = draw(name, batch=2)
    family, live = CvxpyFamily(example.problem, example.parameters, quadratic=quadratic), leaves(example)
    gradients = torch.autograd.grad(weighed(family.solve(live, gradient="implicit", **EXACT)).sum(), live)
    change = direction(example, 1)
    ends = [
        weighed(family.solve([v.detach() + h * d for v, d in zip(live, change, strict=True)], **EXACT))
        for h in (STEP, -STEP)
    ]
    expected = (ends[0] - ends[1]) / (2 * STEP)
    found = sum((g * d).reshape(2, -1).sum(1) for g, d in zip(gradients, change, strict=True))
    assert expected.abs().min() > 1e-2, "a test of nothing"
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_keep_the_structure_of_a_parameter() -> None:
    example = draw("attributes")
    live = leaves(example)
    solution = CvxpyFamily(example.problem, example.parameters).solve(live, gradient="implicit", **EXACT)
    (solution.variables[0].sin().sum() + solution.variables[1][:, 0].sum()).backward()
    diagonal, symmetric = live[0].grad, live[1].grad
    assert diagonal is not None
    assert symmetric is not None
    assert torch.equal(diagonal, diagonal * torch.eye(3))
    assert torch.equal(symmetric, symmetric.mT)
    assert min(float(diagonal.abs().max()), float(symmetric.abs().max())) > 1e-2


@pytest.mark.parametrize("name", ["lasso", "portfolio", "cone"])
def test_gradients_are_those_of_diffcp(name: str) -> None:
    example = draw(name, batch=1)
    live = leaves(example)
    solution = CvxpyFamily(example.problem, example.parameters).solve(live, gradient="implicit", **EXACT)
    example.set(0)
    example.problem.solve(requires_grad=True, eps=1e-10)
    total, rng = torch.zeros(()), np.random.default_rng(1)
    for variable, found in zip(example.problem.variables(), solution.variables, strict=True):
        variable.gradient = rng.standard_normal(variable.shape)
        total = total + (torch.from_numpy(variable.gradient) * found[0]).sum()
    total.backward()
    example.problem.backward()
    size = max(np.abs(parameter.gradient).max() for parameter in example.parameters)
    assert size > 1e-2, "a test of nothing"
    for parameter, leaf in zip(example.parameters, live, strict=True):
        assert leaf.grad is not None
        assert np.abs(leaf.grad[0].numpy() - parameter.gradient).max() <= 1e-4 * size


def test_torch_func() -> None:
    example = draw("portfolio")
    family = CvxpyFamily(example.problem, example.parameters)
    values = [torch.from_numpy(value) for value in example.values]

    def loss(*one: Tensor) -> Tensor:
        solution = family.solve(one, gradient="implicit", **EXACT)
        assert solution.duals[1] is not None
        return solution.variables[0].square().sum() + solution.duals[1].sum() + solution.value

    live = leaves(example)
    expected = torch.autograd.grad(torch.stack([loss(*(v[i] for v in live)) for i in range(3)]).sum(), live)
    mapped = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*values)
    for i in range(3):
        alone = torch.func.grad(loss, argnums=(0, 1, 2))(*(value[i] for value in values))
        for one, many, gradient in zip(alone, mapped, expected, strict=True):
            assert torch.allclose(one, gradient[i], atol=1e-6)
            assert torch.allclose(many[i], gradient[i], atol=1e-6)


def test_jacobian_of_an_instance() -> None:
    """The projection onto a half space: identity minus the normal's."""
    x, p = cp.Variable(3), cp.Parameter(3)
    family = CvxpyFamily(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(x) <= 1]), [p])
    jacobian = torch.func.jacrev(lambda v: family.solve([v], gradient="implicit", **EXACT).variables[0])
    assert torch.allclose(jacobian(torch.ones(3, dtype=torch.float64)), torch.eye(3, dtype=torch.float64) - 1 / 3)


def test_a_neighbour_without_a_solution_spoils_no_gradient() -> None:
    floor, x = cp.Parameter(name="floor"), cp.Variable(2)
    family = CvxpyFamily(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= floor, x <= 1]), [floor])
    values = torch.tensor([0.5, 2.0, 0.2], dtype=torch.float64, requires_grad=True)
    with pytest.warns(fp.AdjointWarning, match=r"instance\(s\) 1 .* PRIMAL_INFEASIBLE"):
        solution = family.solve([values], gradient="implicit", **EXACT)
    solution.variables[0][[0, 2]].sum().backward()
    assert values.grad is not None
    assert values.grad.numpy() == pytest.approx([2, 0, 2], abs=1e-6)


def test_an_invalid_neighbour_spoils_no_gradient() -> None:
    example = draw("lasso")
    clean, spoilt = leaves(example), leaves(example)
    spoilt[1].data[1] = torch.nan
    family = CvxpyFamily(example.problem, example.parameters)
    for live in (clean, spoilt):
        solution = family.solve(live, gradient="implicit", on_invalid="mark", **EXACT)
        solution.variables[0][[0, 2]].sin().sum().backward()
    for one, two in zip(clean, spoilt, strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.allclose(one.grad, two.grad, rtol=0, atol=1e-9)
        assert float(two.grad[1].abs().max()) == 0


def test_a_shared_value_gets_the_sum_over_the_batch() -> None:
    example = draw("lasso")
    A, b, weight = (torch.from_numpy(value) for value in example.values)
    family = CvxpyFamily(example.problem, example.parameters)
    shared, spread = A[0].clone().requires_grad_(), A[:1].repeat(3, 1, 1).requires_grad_()
    for leaf in (shared, spread):
        family.solve([leaf, b, weight], gradient="implicit", **EXACT).variables[0].sin().sum().backward()
    assert shared.grad is not None
    assert spread.grad is not None
    assert torch.allclose(shared.grad, spread.grad.sum(0), atol=1e-7)
