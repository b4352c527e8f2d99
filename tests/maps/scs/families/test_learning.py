"""What training needs of the conic map: points without a scale, features, a smooth merit, solutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.context import select_rows
from fixedpoint.solve import front
from fixedpoint.tensors import pytrees
from maps.scs import SCS, ConeProgram, kkt_error
from maps.scs.certify.kkt import kkt_merit
from maps.scs.families.diabetes import DiabetesLasso
from maps.scs.families.lasso import Lasso
from maps.scs.iteration.map import feature_count
from maps.scs.iteration.state import TAU_FLOOR
from tests.maps.scs.programs import CONES, batch, program


def points(many: ConeProgram, seed: int, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, s), arbitrary; with s in K and y in K* for every other seed."""
    generator = torch.Generator().manual_seed(seed)
    rows = many.batch or 1
    x, y, s = (size * torch.randn(rows, k, generator=generator, dtype=torch.float64) for k in (many.n, many.m, many.m))
    return (x, many.cone.project_dual(y), many.cone.project(s)) if seed % 2 else (x, y, s)


def test_normalized_points_have_no_scale() -> None:
    many = batch("SOCP", range(3))
    map = SCS.of(many)
    context = map.setup(many)
    v = torch.randn(3, map.signature.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v[:, -1] = torch.tensor([0.5, 2.0, 1e-9])
    free = map.dehomogenized(v, context)
    assert free.shape == (3, many.n + many.m)
    assert torch.equal(free, v[:, :-1] / v[:, -1:])
    for factor in (1e-6, 3.0, 1e6):
        assert torch.allclose(map.dehomogenized(factor * v, context), free, rtol=1e-12)
    assert torch.allclose(map.dehomogenized(map.retract(v, context), context), free, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, -1.0, 1e-13, -1e-30])
def test_where_tau_vanishes_there_is_no_point(tau: float) -> None:
    many = batch("SOCP", range(2))
    map = SCS.of(many)
    v = torch.randn(2, map.signature.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v[0, -1] = tau * torch.linalg.vector_norm(v[0, :-1]) if tau > 0 else tau
    v[1, -1] = 1.0
    v.requires_grad_()
    free = map.dehomogenized(v, map.setup(many))
    assert (free[0] == torch.inf).all()
    assert torch.isfinite(free[1]).all()
    (gradient,) = torch.autograd.grad(free[torch.isfinite(free)].sum() + free[0].clamp(max=1).sum(), v)
    assert (gradient[0] == 0).all()
    assert torch.isfinite(gradient).all()
    assert (gradient[1] != 0).all()
    assert TAU_FLOOR == 1e-12


@pytest.mark.parametrize("kind", ["SOCP", "QP"])
def test_at_a_solution_the_normalized_point_is_x_and_y(kind: str) -> None:
    """v = u + R^{-1} (0, s, kappa): where s = 0 the entries are x and y themselves."""
    one = program(kind, 0)
    map = SCS.of(one, scale=1.0, normalize=False)
    solution = fp.solve(map, one, "safeguarded", tolerance=1e-10, max_evaluations=3000)
    free = map.dehomogenized(solution.x[None], map.setup(one))[0]
    assert torch.allclose(free[: one.n], solution.output.x, rtol=1e-6, atol=1e-7)
    tight = solution.output.s.abs() < 1e-9
    assert tight.any()
    assert torch.allclose(free[one.n :][tight], solution.output.y[tight], rtol=1e-6, atol=1e-6)


def test_features_are_the_scaled_data_that_varies() -> None:
    many = batch("QP", range(3))
    shared = ConeProgram(many.A[0], many.b, many.c, many.P, many.cones)
    for normalize in (True, False):
        for problem, entries in ((many, len(many.patterns["A"]) + len(many.patterns["P"])), (shared, None)):
            map = SCS.of(problem, normalize=normalize)
            context = map.setup(problem)
            features = map.featurize(context)
            expected = len(many.patterns["P"]) if entries is None else entries
            assert features.shape == (3, many.n + many.m + expected)
            assert map.signature.features == feature_count(problem) == features.shape[1]
            data = context.rows.data
            assert torch.equal(features[:, : many.m], data.b)
            assert torch.equal(features[:, many.m : many.m + many.n], data.c)
    plain = SCS.of(shared, normalize=False)
    seen = plain.featurize(plain.setup(shared))
    assert torch.equal(seen[:, : many.m], many.b)
    tail = seen[0, many.m + many.n :]
    rows, columns = many.patterns["P"].index(many.b.device)
    assert torch.equal(tail, many.P[0][rows, columns])


def test_features_of_what_is_left_of_a_batch() -> None:
    """The same columns after instances have left it."""
    many = batch("SOCP", range(4))
    map = SCS.of(many)
    context = map.setup(many)
    rows = torch.tensor([3, 1])
    assert torch.equal(map.featurize(select_rows(context, rows)), map.featurize(context)[rows])


@pytest.mark.parametrize("kind", CONES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_merit_is_between_the_error_and_a_constant_times_it(kind: str, size: float) -> None:
    many = batch(kind, range(4))
    constant = (5 * max(many.n, many.m)) ** 0.25
    assert constant <= max(many.n, many.m) ** 0.5
    ratios = []
    for seed in range(6):
        x, y, s = points(many, seed, size)
        ratios.append(kkt_merit(many, x, y, s) / kkt_error(many, x, y, s))
    found = torch.stack(ratios)
    assert (found >= 1 - 1e-12).all()
    assert (found <= constant).all()
    assert found.max() > 1.01, "not the error itself"


def test_the_merit_by_hand() -> None:
    """4-norms of each condition over 1 + its size, then the 4-norm of the five."""
    many = batch("QP", range(2))
    x, y, s = points(many, 0)
    A, b, c, P = many.A, many.b, many.c, many.P
    Ax, Aty, Px = ((M @ v[:, :, None])[:, :, 0] for M, v in ((A, x), (A.mT, y), (P, x)))
    gaps = [(x * Px).sum(1, keepdim=True), (c * x).sum(1, keepdim=True), (b * y).sum(1, keepdim=True)]
    conditions = [
        (Ax + s - b, [Ax, s, b]),
        (Px + Aty + c, [Px, Aty, c]),
        (sum(gaps[1:], gaps[0]), gaps),
        (s - many.cone.project(s), [s]),
        (y - many.cone.project_dual(y), [y]),
    ]
    terms = []
    for violation, parts in conditions:
        size = torch.stack([part.abs().amax(1) for part in parts]).amax(0)
        terms.append(violation.pow(4).sum(1).pow(0.25) / (1 + size))
    expected = torch.stack(terms, 1).pow(4).sum(1).pow(0.25)
    assert torch.allclose(kkt_merit(many, x, y, s), expected, rtol=1e-12)


def test_the_merit_s_derivative() -> None:
    """Against central differences, and finite at an exact solution, where the merit is 0."""
    many = batch("QP", range(2))
    x, y, s = (t.requires_grad_() for t in points(many, 0))
    assert torch.autograd.gradcheck(lambda *p: kkt_merit(many, *p), (x, y, s), eps=1e-6, atol=1e-5)
    exact = ConeProgram([[1.0]], [[1.0], [2.0]], [[0.0], [0.0]], [[0.0]], cones={"l": 1})  # any x <= b, y = 0
    at = [torch.tensor([[0.5], [1.5]]), torch.zeros(2, 1), torch.tensor([[0.5], [0.5]])]
    x, y, s = (t.double().requires_grad_() for t in at)
    merit = kkt_merit(exact, x, y, s)
    assert (merit == 0).all()
    gradients = torch.autograd.grad(merit.sum(), (x, y, s))
    assert all((g == 0).all() for g in gradients)


def test_the_merit_of_extreme_points() -> None:
    """No overflow where the error has none, and inf where a number is not finite."""
    many = batch("SOCP", range(3))
    for size in (1e-100, 1e100):
        x, y, s = points(many, 1, size)
        merit = kkt_merit(many, x, y, s)
        assert torch.isfinite(merit).all()
        assert (merit >= kkt_error(many, x, y, s) * (1 - 1e-12)).all()
    x, y, s = points(many, 1)
    x[0, 0], x[1, 0] = torch.nan, torch.inf
    assert torch.isfinite(kkt_merit(many, x, y, s)).tolist() == [False, False, True]
    assert (kkt_merit(many, x, y, s)[:2] == torch.inf).all()


def test_a_lost_scale_earns_nothing() -> None:
    """Where the map's residual is infinite (tau vanishes) training sees an infinite merit, without a gradient."""
    family = DiabetesLasso()
    problem = family.sample(2, generator=torch.Generator().manual_seed(0))
    v = family.map.initial(family.map.setup(problem)).requires_grad_()
    path = fp.unroll(family.map, problem, steps=1, start=v)
    lost = torch.tensor([torch.inf, 1.0], dtype=v.dtype)
    merit = family.merit(problem, pytrees.transform(lambda t: t[0], path.output), lost)
    assert torch.isposinf(merit).tolist() == [True, False]
    (gradient,) = torch.autograd.grad(torch.where(torch.isposinf(merit), 0.0, merit).sum(), v)
    assert not gradient[0].any()
    assert gradient[1].any()


def test_solutions_are_fixed_points() -> None:
    family = DiabetesLasso()
    problem = family.sample(2, generator=torch.Generator().manual_seed(0))
    solutions = family.solutions(problem)
    context = family.map.setup(problem)
    moved = family.map.forward(solutions, context) - solutions
    assert solutions.shape == (2, family.map.signature.size)
    assert torch.linalg.vector_norm(moved, dim=1).max() < 1e-8 * family.map.signature.size**0.5
    free = family.map.dehomogenized(solutions, context)
    assert torch.isfinite(free).all()
    at = fp.unroll(family.map, problem, None, steps=1, start=solutions)
    assert family.error(problem, type(at.output)(*(t[0] for t in at.output)), at.residual[0]).max() < 1e-8


def test_instances_without_a_solution_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    A = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)  # the second asks for x <= -1 and x >= 1
    mixed = ConeProgram(A, b, torch.zeros(2, 1, dtype=torch.float64), cones={"l": 2})
    family = DiabetesLasso()
    family.map = SCS.of(mixed)
    solve = fp.solve
    monkeypatch.setattr(front, "solve", lambda *args, **kw: solve(*args, **{**kw, "max_evaluations": 300}))
    with pytest.raises(ArithmeticError, match=r"solutions: instance 1 ended .* short of 1e-09"):
        family.solutions(mixed)


def test_the_paper_s_setting_of_the_lasso() -> None:
    """The metric of SCS 2: every R_y = 1, rho_x 1e-3, tau factor 1, alpha 1.5, in the conic form."""
    family: Any = fp.families.create("lasso", **Lasso.settings["paper"])
    problem = family.sample(2, generator=torch.Generator().manual_seed(0))
    metric = family.map.metric(family.map.setup(problem))
    n, m = problem.n, problem.m
    assert (n, m) == (102, 204)
    assert (metric[:, :n] == 1e-3).all()
    assert (metric[:, n : n + m] == 1).all()
    assert (metric[:, -1] == 1).all()
    assert family.map.settings.alpha == 1.5
    assert family.map.settings.zero_cone_factor == 1, "of rows of the zero cone too, though the Lasso has none"
    assert problem.P is None
    path = fp.unroll(family.map, problem, None, steps=60)
    assert torch.isfinite(path.fx).all()
    assert (path.residual[-1] < 0.3 * path.residual[0]).all()
