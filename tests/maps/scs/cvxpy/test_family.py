"""`CvxpyFamily.solve` gives what CVXPY gives with Clarabel, instance by instance, and says what has no solution."""

from __future__ import annotations

import math
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import fixedpoint as fp
from fixedpoint import Status
from maps.scs import kkt_error
from maps.scs.cvxpy import CvxpyFamily
from tests.maps.scs.cvxpy.examples import EXAMPLES, dense, draw

EXACT: Any = {"eps_abs": 1e-9, "eps_rel": 1e-9}


def box() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    """Bounded where floor <= 1, infeasible elsewhere."""
    floor, x = cp.Parameter(name="floor"), cp.Variable(2, name="x")
    return cp.Problem(cp.Minimize(cp.sum(x)), [x >= floor, x <= 1]), floor, x


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # as far as Clarabel gets: ours are as close
@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("name", EXAMPLES)
def test_variables_duals_and_values_are_those_of_clarabel(name: str, quadratic: bool) -> None:
    example = draw(name)
    family = CvxpyFamily(example.problem, example.parameters, quadratic=quadratic)
    solution = family.solve([torch.from_numpy(value) for value in example.values], scale=1.0, **EXACT)
    assert solution.converged.all()
    assert solution.evaluations.shape == (3,)
    for i in range(3):
        example.set(i)
        example.problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        assert float(solution.value[i]) == pytest.approx(example.problem.value, rel=1e-6, abs=1e-6)
        for variable, found in zip(example.problem.variables(), solution.variables, strict=True):
            assert tuple(found[i].shape) == variable.shape
            assert np.allclose(found[i].numpy(), dense(variable.value), atol=1e-5), variable
        for constraint, dual in zip(example.problem.constraints, solution.duals, strict=True):
            expected = constraint.dual_value
            assert isinstance(expected, list) == isinstance(dual, list)
            pairs = zip(expected, dual, strict=True) if isinstance(dual, list) else [(expected, dual)]
            for theirs, mine in pairs:
                assert tuple(mine[i].shape) == np.shape(theirs)
                assert np.allclose(mine[i].numpy(), theirs, atol=1e-5), constraint


def test_float32_has_tolerances_that_it_can_reach() -> None:
    for name in ("lasso", "semidefinite", "entropy", "attributes"):
        example = draw(name)
        family = CvxpyFamily(example.problem, example.parameters)
        solution = family.solve([torch.from_numpy(value).float() for value in example.values])
        assert solution.converged.all(), name
        assert solution.variables[0].dtype == torch.float32
        double = family.solve([torch.from_numpy(value) for value in example.values])
        assert double.solution.primal_residual.max() < 1e-5, "float64 keeps its own"
        assert torch.allclose(solution.variables[0].double(), double.variables[0], atol=1e-2)


def test_one_in_one_out() -> None:
    example = draw("portfolio")
    family = CvxpyFamily(example.problem, example.parameters)
    batch = family.solve(example.values, **EXACT)
    one = family.solve([value[1] for value in example.values], **EXACT)
    assert one.variables[0].shape == (5,)
    assert one.duals[0].shape == ()
    assert (one.status.shape, one.value.shape, one.evaluations.shape) == ((), (), ())
    assert one.statuses == [Status.CONVERGED]
    assert torch.allclose(one.variables[0], batch.variables[0][1], atol=1e-7)
    assert torch.allclose(one.value, batch.value[1], atol=1e-7)


def test_a_value_without_batch_axis_is_shared() -> None:
    example = draw("lasso")
    A, b, weight = example.values
    family = CvxpyFamily(example.problem, example.parameters)
    program = family.program([A[0], b, weight])
    assert (program.A.ndim, program.b.ndim, program.c.ndim) == (2, 2, 2)
    shared = family.solve([A[0], b, weight], **EXACT)
    spread = family.solve([np.stack([A[0]] * 3), b, weight], **EXACT)
    assert torch.allclose(shared.variables[0], spread.variables[0], atol=1e-7)


def test_a_batch_in_which_nothing_but_a_constant_varies() -> None:
    x, p = cp.Variable(2), cp.Parameter(name="p")
    family = CvxpyFamily(cp.Problem(cp.Maximize(cp.sum(x) + p), [x <= 1]), [p])
    program = family.program([[1.0, 2.0, 3.0]])
    assert program.batch == 3
    solution = family.solve([[1.0, 2.0, 3.0]])
    assert solution.variables[0].shape == (3, 2)
    assert solution.value.numpy() == pytest.approx([3, 4, 5], abs=1e-5)


@pytest.mark.parametrize(("sense", "worst"), [(cp.Minimize, math.inf), (cp.Maximize, -math.inf)])
def test_an_infeasible_instance_is_alone_with_it(sense: Any, worst: float) -> None:
    problem, floor, _ = box()
    problem = cp.Problem(sense(problem.objective.expr), problem.constraints)
    family = CvxpyFamily(problem, [floor])
    solution = family.solve([[0.0, 2.0, 0.5]])
    assert solution.statuses == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.CONVERGED]
    assert float(solution.value[1]) == worst
    assert solution.variables[0][1].isnan().all()
    assert solution.duals[0][1].isnan().all()
    assert torch.isfinite(solution.solution.y[1]).all(), "the certificate"
    alone = family.solve([[0.0, 0.5]])
    assert torch.allclose(solution.variables[0][[0, 2]], alone.variables[0], atol=1e-12)


def test_an_unbounded_instance() -> None:
    p, x = cp.Parameter(2, name="p"), cp.Variable(2)
    solution = CvxpyFamily(cp.Problem(cp.Minimize(p @ x), [x >= 1]), [p]).solve([[[1.0, 1.0], [-1.0, 1.0]]])
    assert solution.statuses == [Status.CONVERGED, Status.DUAL_INFEASIBLE]
    assert float(solution.value[1]) == -math.inf
    assert solution.variables[0][1].isnan().all()


def test_float32_stays_float32_and_whole_numbers_become_float64() -> None:
    example = draw("lasso")
    family = CvxpyFamily(example.problem, example.parameters)
    A, b, _ = (torch.as_tensor(value, dtype=torch.float32) for value in example.values)
    solution = family.solve([A, b, 1], eps_abs=1e-4, eps_rel=1e-4)
    assert solution.converged.all()
    assert {t.dtype for t in (solution.variables[0], solution.duals[0], solution.value)} == {torch.float32}
    assert family.program([A.to(torch.int64), b.to(torch.int64), 1]).b.dtype == torch.float64


def test_a_warm_start_from_an_earlier_solution() -> None:
    example = draw("portfolio")
    family = CvxpyFamily(example.problem, example.parameters)
    first = family.solve(example.values, **EXACT)
    again = family.solve(example.values, warm_start=first, **EXACT)
    assert again.solution.warm_started.all()
    assert bool((again.evaluations < first.evaluations).all())


def test_settings_reach_the_map_and_the_solve() -> None:
    example = draw("cone")
    family = CvxpyFamily(example.problem, example.parameters, scale=5.0, alpha=1.2)
    assert (family.map.settings.scale, family.map.settings.alpha, family.map.settings.normalize) == (5.0, 1.2, "shared")
    assert CvxpyFamily(example.problem, example.parameters, normalize=False).map.settings.normalize is False
    assert CvxpyFamily(*draw("lasso")[:2]).map.settings.normalize is True, "A varies"
    few = family.solve(example.values, max_evaluations=5, **EXACT)
    assert few.evaluations.tolist() == [5, 5, 5]
    other = CvxpyFamily(example.problem, example.parameters).solve(example.values, max_evaluations=5, **EXACT)
    assert not torch.allclose(few.variables[0], other.variables[0]), "the scale made no difference"


def test_the_map_fits_the_programs() -> None:
    example = draw("portfolio")
    family = CvxpyFamily(example.problem, example.parameters)
    program = family.program(example.values)
    solution = fp.solve(family.map, program, "anderson-2", tolerance=1e-8)
    assert family.map.featurize(family.map.setup(program)).shape == (3, family.map.signature.features)
    assert float(kkt_error(program, *solution.output).max()) < 1e-7
    assert (family.form, CvxpyFamily(*example[:2], quadratic=False).form) == ("quadratic", "conic")


def test_what_binds_nothing() -> None:
    """An infinite bound, and a constraint without variables."""
    p, x = cp.Parameter(3, name="p"), cp.Variable(3)
    constraints = [x <= np.array([1, np.inf, 1]), p <= 10]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), constraints)
    solution = CvxpyFamily(problem, [p]).solve([[[2.0, 2.0, 0.5]]], **EXACT)
    assert solution.variables[0][0].numpy() == pytest.approx([1, 2, 0.5], abs=1e-7)
    assert solution.duals[0][0].numpy() == pytest.approx([2, 0, 0], abs=1e-6)
    assert solution.duals[1].shape == (1, 3)


def test_a_problem_without_constraints() -> None:
    p, x = cp.Parameter(3, name="p"), cp.Variable(3)
    solution = CvxpyFamily(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p]).solve([[[2.0, 2.0, 0.5]]], **EXACT)
    assert solution.variables[0][0].numpy() == pytest.approx([2, 2, 0.5], abs=1e-7)
    assert solution.duals == []


def test_what_does_not_depend_on_the_values_is_prepared_once() -> None:
    b, x = cp.Parameter(4), cp.Variable(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b) + cp.norm1(x)), [cp.sum(x) == 1])
    family = CvxpyFamily(problem, [b], adaptive_scale=False)
    values = [torch.arange(12.0, dtype=torch.float64).reshape(3, 4)]
    prepared = family.prepare(values)
    later = [torch.flip(values[0], [0, 1]) / 3]
    found, alone = (family.solve(later, **options) for options in ({"prepared": prepared}, {}))
    assert torch.equal(found.variables[0], alone.variables[0])
    assert torch.equal(found.evaluations, alone.evaluations)
    with pytest.raises(ValueError, match=r"^prepared: it was made by a map of another"):
        family.solve(later, prepared=prepared, scale=3.0)
