"""`FixedPointSolver` inside CVXPY: values, statuses, statistics, caches, and what the user gets wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import fixedpoint as fp
from accelerators import AndersonII, Picard
from maps.scs.cvxpy import FixedPointSolver

EXACT = {"eps_abs": 1e-9, "eps_rel": 1e-9}
REFUSED = "mixed-integer|no conic solvers"
"""What CVXPY says of a solver without integer variables: from 1.9 on, and before."""


def least_squares() -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    """Projection of a parameter onto a half space of the simplex: parametrized, DPP, with active rows."""
    x, target = cp.Variable(4), cp.Parameter(4, name="target")
    target.value = np.array([0.9, 0.3, -0.4, 0.2])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [cp.sum(x) == 1, x >= 0, x[0] <= 0.5])
    return problem, x, target


def info(problem: cp.Problem) -> dict[str, Any]:
    return problem.solver_stats.extra_stats["info"]


def linear(rng: np.random.Generator) -> cp.Problem:
    """n = 8: 2 equalities and 6 of 14 inequalities active, so that both solutions are single points."""
    G, E, x0 = rng.standard_normal((14, 8)), rng.standard_normal((2, 8)), rng.standard_normal(8)
    active = np.arange(14) < 6
    y, slack = np.where(active, rng.uniform(0.5, 2, 14), 0), np.where(active, 0, rng.uniform(0.5, 2, 14))
    c = -(G.T @ y + E.T @ rng.standard_normal(2))
    x = cp.Variable(8)
    return cp.Problem(cp.Minimize(c @ x), [G @ x <= G @ x0 + slack, E @ x == E @ x0])


def quadratic(rng: np.random.Generator) -> cp.Problem:
    F, G, x = rng.standard_normal((6, 6)), rng.standard_normal((9, 6)), cp.Variable(6)
    objective = cp.quad_form(x, F @ F.T + np.eye(6)) + rng.standard_normal(6) @ x
    return cp.Problem(cp.Minimize(objective), [G @ x <= rng.uniform(-0.2, 0.5, 9) + 0.1, cp.sum(x) == 0.3])


def second_order(rng: np.random.Generator) -> cp.Problem:
    F, x = rng.standard_normal((3, 5)), cp.Variable(5)
    constraints = [cp.SOC(1 + 0.1 * x[0], F @ x), cp.SOC(cp.Constant(2.0), x), x[1] + x[2] == 0.2]
    return cp.Problem(cp.Maximize(rng.standard_normal(5) @ x), constraints)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [linear, quadratic, second_order])
def test_values_and_duals_are_those_of_clarabel(kind: Callable[[np.random.Generator], cp.Problem], seed: int) -> None:
    problem = kind(np.random.default_rng(seed))
    found = []
    exact = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
    for solver, options in ((cp.CLARABEL, exact), (FixedPointSolver(**EXACT), {})):
        problem.solve(solver=solver, **options)
        assert problem.status == cp.OPTIMAL
        primal = np.concatenate([v.value.ravel() for v in problem.variables()])
        dual = np.concatenate([np.ravel(part) for c in problem.constraints for part in parts(c.dual_value)])
        found.append((problem.value, primal, dual))
    for ours, theirs in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def parts(dual: Any) -> list[Any]:
    """A constraint's dual as a list: that of a cone constraint has several parts."""
    return dual if isinstance(dual, list) else [dual]


def test_a_quadratic_objective_stays_quadratic_unless_asked_otherwise() -> None:
    problem, x, _ = least_squares()
    assert "P" in problem.get_problem_data(FixedPointSolver())[0]
    problem.solve(solver=FixedPointSolver(**EXACT))
    kept = x.value
    conic = problem.get_problem_data(FixedPointSolver(), solver_opts={"use_quad_obj": False})[0]
    assert "P" not in conic
    assert conic["dims"].soc
    problem.solve(solver=FixedPointSolver(**EXACT), use_quad_obj=False)
    np.testing.assert_allclose(x.value, kept, atol=1e-6)


def test_without_constraints() -> None:
    x = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) - 2 * np.arange(3.0) @ x))
    problem.solve(solver=FixedPointSolver())
    np.testing.assert_allclose(x.value, np.arange(3.0), atol=1e-5)
    assert problem.get_problem_data(FixedPointSolver())[0]["b"].shape == (0,)


def test_infeasible() -> None:
    x = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= 1, cp.sum(x) <= 1])
    problem.solve(solver=FixedPointSolver())
    assert (problem.status, problem.value, x.value) == (cp.INFEASIBLE, np.inf, None)
    assert info(problem)["status"] == "PRIMAL_INFEASIBLE"
    data, y = problem.get_problem_data(FixedPointSolver())[0], problem.solver_stats.extra_stats["y"]
    assert (y >= 0).all()
    np.testing.assert_allclose(data["A"].T @ y, 0, atol=1e-6)
    np.testing.assert_allclose(data["b"] @ y, -1)


@pytest.mark.parametrize("constrained", [True, False])
def test_unbounded(constrained: bool) -> None:
    x = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [x <= 1] if constrained else [])
    problem.solve(solver=FixedPointSolver())
    assert (problem.status, problem.value) == (cp.UNBOUNDED, -np.inf)
    assert info(problem)["status"] == "DUAL_INFEASIBLE"


@pytest.mark.parametrize("status", [cp.INFEASIBLE_INACCURATE, cp.UNBOUNDED_INACCURATE])
def test_a_spent_budget_without_a_point_does_not_pass_for_a_solution(status: str) -> None:
    x = cp.Variable(2)
    constraints = [x >= 1, cp.sum(x) <= 1] if status == cp.INFEASIBLE_INACCURATE else [x <= 1]
    problem = cp.Problem(cp.Minimize(cp.sum(x)), constraints)
    with pytest.warns(UserWarning, match="inaccurate"):
        problem.solve(solver=FixedPointSolver(), eps_infeas=0, max_evaluations=100)  # 0: never certifies
    assert (problem.status, x.value) == (status, None)


def test_statistics() -> None:
    problem, _, _ = least_squares()
    problem.solve(solver=FixedPointSolver())
    stats = problem.solver_stats
    assert stats.solver_name == "FIXEDPOINT"
    assert 0 < stats.num_iters < 1000
    assert 0 <= stats.setup_time < 60
    assert 0 < stats.solve_time < 60
    assert info(problem)["status"] == "CONVERGED"
    assert max(info(problem)[name] for name in ("res_pri", "res_dual", "gap")) < 1e-5


def test_keywords_of_solve_override_those_of_the_solver() -> None:
    problem, _, _ = least_squares()
    solver = FixedPointSolver(**EXACT, check_interval=1)
    problem.solve(solver=solver, accelerator=None, warm_start=False)
    plain = problem.solver_stats.num_iters
    problem.solve(solver=solver, warm_start=False)
    assert problem.solver_stats.num_iters < plain
    problem.solve(solver=solver, accelerator=None, eps_abs=1e-2, eps_rel=1e-2, warm_start=False)
    assert problem.solver_stats.num_iters < plain


def test_a_spent_budget_is_inaccurate_and_the_next_solve_goes_on_from_there() -> None:
    problem, _, _ = least_squares()
    solver = FixedPointSolver(accelerator=None, check_interval=1)
    with pytest.warns(UserWarning, match="inaccurate"):
        problem.solve(solver=solver, max_evaluations=15)
    assert problem.status == cp.OPTIMAL_INACCURATE
    assert problem.solver_stats.num_iters == 15
    problem.solve(solver=solver)
    resumed = problem.solver_stats.num_iters
    assert info(problem)["warm_started"]
    problem.solve(solver=solver, warm_start=False)
    assert not info(problem)["warm_started"]
    assert resumed < problem.solver_stats.num_iters


def test_warm_start_from_the_previous_solution() -> None:
    problem, x, target = least_squares()
    solver = FixedPointSolver(check_interval=1, **EXACT)
    problem.solve(solver=solver)
    cold, solution = problem.solver_stats.num_iters, x.value
    assert not info(problem)["warm_started"]
    problem.solve(solver=solver)
    assert info(problem)["warm_started"]
    assert problem.solver_stats.num_iters <= 3
    np.testing.assert_allclose(x.value, solution, atol=1e-7)
    target.value = target.value + 1e-4
    problem.solve(solver=solver)
    assert info(problem)["warm_started"]
    assert problem.solver_stats.num_iters <= cold
    problem.solve(solver=solver, warm_start=False)
    assert not info(problem)["warm_started"]


@pytest.mark.filterwarnings("ignore:.*not DPP")
def test_a_problem_that_compiles_to_another_size_starts_cold() -> None:
    """CVXPY keeps its solver cache although the rank of a parameter changes the number of rows."""
    x, P = cp.Variable(3), cp.Parameter((3, 3), PSD=True)
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [cp.quad_form(x, P) <= 1, x >= -1])
    for diagonal in ([1.0, 1.0, 1.0], [1.0, 0.0, 0.0]):
        P.value = np.diag(diagonal)
        problem.solve(solver=FixedPointSolver(**EXACT))
        assert not info(problem)["warm_started"]
    np.testing.assert_allclose(x.value, [-1, -1, -1], atol=1e-5)


def test_equal_solvers_compile_a_problem_once(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, x, target = least_squares()
    compilations = []
    construct = cp.Problem._construct_chain
    monkeypatch.setattr(cp.Problem, "_construct_chain", lambda *a, **k: compilations.append(1) or construct(*a, **k))
    for shift in range(3):
        target.value = np.array([0.9, 0.3, -0.4, 0.2]) + shift
        problem.solve(solver=FixedPointSolver(AndersonII(memory=5), **EXACT), enforce_dpp=True)
        fresh, y, other = least_squares()
        other.value = target.value
        fresh.solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(x.value, y.value, atol=1e-6)
    assert len(compilations) == 1 + 3
    problem.solve(solver=FixedPointSolver(AndersonII(memory=5), **EXACT), max_evaluations=99)
    assert len(compilations) == 1 + 3


def test_equality_is_by_class_and_settings() -> None:
    class Mine(FixedPointSolver):
        pass

    class Unregistered(Picard):
        pass

    same = [FixedPointSolver("anderson-2", scale=1.0), FixedPointSolver(scale=1.0, accelerator="anderson-2")]
    assert same[0] == same[1]
    assert hash(same[0]) == hash(same[1])
    assert FixedPointSolver(AndersonII(memory=5)) == FixedPointSolver(AndersonII(memory=5))
    for one, other in (
        (FixedPointSolver(), Mine()),
        (FixedPointSolver(scale=1.0), FixedPointSolver(scale=2.0)),
        (FixedPointSolver("picard"), FixedPointSolver("anderson-2")),
        (FixedPointSolver(AndersonII(memory=5)), FixedPointSolver(AndersonII(memory=6))),
        (FixedPointSolver(fp.accelerators.create("gru")), FixedPointSolver(fp.accelerators.create("gru"))),
        (FixedPointSolver(Unregistered()), FixedPointSolver(Unregistered())),
        (FixedPointSolver(), "FIXEDPOINT"),
    ):
        assert one != other


def test_unknown_keywords_are_named_together_with_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"unknown max_iters; known are accelerator, .*eps_abs.*max_evaluations"):
        FixedPointSolver(max_iters=3)
    problem, _, _ = least_squares()
    with pytest.raises(TypeError, match=r"unknown acceleration_lookback, eps; known are"):
        problem.solve(solver=FixedPointSolver(), eps=1e-3, acceleration_lookback=3)
    with pytest.raises(ValueError, match="eps_abs"):
        problem.solve(solver=FixedPointSolver(), eps_abs=-1)


def test_nan_names_the_parameter() -> None:
    problem, _, target = least_squares()
    mutable = np.ones(4)
    target.value = mutable
    mutable[1] = np.nan
    with pytest.raises(ValueError, match="parameter target: expected finite numbers, got NaN"):
        problem.solve(solver=FixedPointSolver())


@pytest.mark.parametrize(("bad", "part"), [((np.nan, 1, 1), "c"), ((1, np.inf, 1), "A"), ((1, 1, -np.inf), "b")])
def test_bad_constants_name_the_part_of_the_data(bad: tuple[float, ...], part: str) -> None:
    c, a, b = (np.array([1.0, value]) for value in bad)
    x = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(c @ x), [cp.multiply(a, x) <= b, x >= 0])
    with pytest.raises(ValueError, match=rf"{part} \(from the problem's constants\): expected finite numbers"):
        problem.solve(solver=FixedPointSolver())


def test_an_infinite_upper_bound_is_none() -> None:
    x = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 5)), [x <= np.array([1.0, np.inf, 2.0])])
    problem.solve(solver=FixedPointSolver(**EXACT))
    np.testing.assert_allclose(x.value, [1, 5, 2], atol=1e-6)
    np.testing.assert_allclose(problem.constraints[0].dual_value, [8, 0, 6], atol=1e-5)


def test_mixed_integer_problems_are_refused() -> None:
    x = cp.Variable(2, integer=True)
    with pytest.raises(cp.SolverError, match=REFUSED):
        cp.Problem(cp.Minimize(cp.sum(x)), [x >= 0.5]).solve(solver=FixedPointSolver())


def test_a_diverged_solve_is_an_error() -> None:
    class Broken(Picard):
        def step(self, at: fp.Evaluation, state: Any) -> tuple[torch.Tensor, Any]:
            return at.fx * torch.nan, state

    problem, _, _ = least_squares()
    with pytest.raises(cp.SolverError, match="FIXEDPOINT"):
        problem.solve(solver=FixedPointSolver(Broken()))


def test_verbose_prints_a_few_lines_and_calls_the_callback(capsys: pytest.CaptureFixture[str]) -> None:
    problem, _, _ = least_squares()
    seen: list[int] = []
    solver = FixedPointSolver(callback=lambda progress: seen.append(progress.evaluations))
    problem.solve(solver=solver, verbose=True)
    printed = [line for line in capsys.readouterr().out.splitlines() if "evaluations" in line or "FIXEDPOINT" in line]
    assert "n=8" in printed[0] or "n=4" in printed[0]
    assert "residual" in printed[1]
    assert f"CONVERGED after {problem.solver_stats.num_iters} evaluations" in printed[-1]
    assert 3 <= len(printed) <= 20
    assert seen[-1] == problem.solver_stats.num_iters
    problem.solve(solver=FixedPointSolver())
    assert capsys.readouterr().out == ""


def test_the_result_does_not_depend_on_global_state() -> None:
    def solution() -> np.ndarray:
        problem, x, _ = least_squares()
        problem.solve(solver=FixedPointSolver())
        return x.value

    expected, dtype = solution(), torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32 if dtype == torch.float64 else torch.float64)
        torch.manual_seed(7)
        np.random.seed(7)
        with torch.no_grad():
            np.testing.assert_array_equal(solution(), expected)
    finally:
        torch.set_default_dtype(dtype)


def test_the_conic_package_does_not_load_cvxpy() -> None:
    code = "import sys, maps.scs; sys.exit('cvxpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
