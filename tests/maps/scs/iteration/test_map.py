"""The SCS map: solutions, the referee, batches, gradients."""

from __future__ import annotations

from typing import Any

import clarabel
import numpy as np
import pytest
import torch
from scipy import sparse

import fixedpoint as fp
from maps.scs import SCS, ConeProgram, FactorizationError, kkt_error, solve
from maps.scs.certify.kkt import kkt_terms
from maps.scs.iteration import equilibration, residuals
from maps.scs.linear_systems import dense as dense_systems
from maps.scs.problem.sparse_matrix import times
from tests.maps.scs.programs import CONES, batch, data, program

KINDS = list(CONES)


def reference(found: dict[str, Any], cones: dict[str, Any]) -> float:
    """The optimal value by Clarabel."""
    n = found["c"].shape[0]
    blocks = [clarabel.ZeroConeT(cones["z"]), clarabel.NonnegativeConeT(cones["l"])]
    blocks += [clarabel.SecondOrderConeT(k) if k > 1 else clarabel.NonnegativeConeT(k) for k in cones.get("q", []) if k]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    P = sparse.triu(found.get("P", sparse.csc_matrix((n, n)))).tocsc()
    solver = clarabel.DefaultSolver(P, found["c"], sparse.csc_matrix(found["A"]), found["b"], blocks, settings)
    return float(solver.solve().obj_val)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["anderson-1", "anderson-2", "safeguarded", None])
def test_solutions_are_optimal(kind: str, name: str | None) -> None:
    for seed in (0, 2):
        found, cones = data(kind, seed)
        one = ConeProgram(**found, cones=cones)
        solution = solve(one, name, eps_abs=1e-7, eps_rel=1e-7, max_evaluations=5000, scale=1.0)
        assert solution.statuses == [fp.Status.CONVERGED]
        assert kkt_error(one, solution.x, solution.y, solution.s) <= 1e-6
        assert float(solution.objective) == pytest.approx(reference(found, cones), rel=1e-5, abs=1e-5)


def test_one_and_many_agree() -> None:
    for kind in KINDS:
        # dense programs: counted entries are those of the union, so normalization is left out of the comparison
        many = batch(kind, range(4))
        together = solve(many, "anderson-2", eps_abs=0, eps_rel=0, max_evaluations=15, normalize=False)
        for i in range(4):
            one = ConeProgram(many.A[i], many.b[i], many.c[i], None if many.P is None else many.P[i], many.cones)
            alone = solve(one, "anderson-2", eps_abs=0, eps_rel=0, max_evaluations=15, normalize=False)
            for part in "xys":
                a, b = getattr(alone, part), getattr(together, part)[i]
                assert a.shape == b.shape
                assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("normalize", [True, False])
def test_shared_matrices_equal_per_instance_ones(normalize: bool) -> None:
    many = batch("QP", range(1))
    b = torch.cat([many.b, 2 * many.b, many.b])
    c = torch.cat([many.c, many.c, 0.5 * many.c])
    shared = ConeProgram(many.A[0], b, c, many.P[0], many.cones)
    rows = ConeProgram(many.A.expand(3, -1, -1), b, c, many.P.expand(3, -1, -1), many.cones)
    map = SCS.of(shared, normalize=normalize)
    assert (map.setup(shared).shared.system is not None) == (not normalize), "one factor for the batch"
    one, two = (solve(p, None, eps_abs=0, eps_rel=0, max_evaluations=20, normalize=normalize) for p in (shared, rows))
    assert torch.allclose(one.x, two.x, rtol=1e-10, atol=1e-11)


def test_residuals_are_those_of_the_original_data() -> None:
    for kind in KINDS:
        found, cones = data(kind, 1)
        solution = solve(ConeProgram(**found, cones=cones), None, max_evaluations=30)
        x, y, s = (np.asarray(getattr(solution, part)) for part in "xys")
        A, b, c = found["A"], found["b"], found["c"]
        Px = found["P"] @ x if "P" in found else 0 * x
        assert float(solution.primal_residual) == pytest.approx(np.abs(A @ x + s - b).max(), rel=1e-9)
        assert float(solution.dual_residual) == pytest.approx(np.abs(Px + A.T @ y + c).max(), rel=1e-9)
        assert float(solution.gap) == pytest.approx(abs(x @ Px + c @ x + b @ y), rel=1e-8, abs=1e-12)
        assert float(solution.objective) == pytest.approx(x @ Px / 2 + c @ x, rel=1e-9)


def test_the_map_s_residual_is_the_referee_s() -> None:
    one = program("QP", 2)
    map = SCS.of(one)
    solution = fp.solve(map, one, tolerance=1e-3)
    x, y, s = solution.output
    assert float(solution.residual) == pytest.approx(float(kkt_error(one, x, y, s)), rel=1e-8)


def test_the_residual_counts_every_condition() -> None:
    """On made-up points where one condition alone is violated, scaled or not."""
    one = batch("QP", range(1))
    generator = torch.Generator().manual_seed(0)
    x, y, s = (torch.randn(1, k, generator=generator, dtype=torch.float64) for k in (one.n, one.m, one.m))
    data = equilibration.Data(one.A, one.P, one.b, one.c)
    diagonals = equilibration.equilibrate(data, one.cone, one.patterns)
    D, E, sigma = diagonals
    for b, c in (
        (one.b, one.c),
        ((one.A @ x[:, :, None])[:, :, 0] + s, one.c),  # primal holds
        (
            (one.A @ x[:, :, None])[:, :, 0] + s,
            -((one.P @ x[:, :, None]) + one.A.mT @ y[:, :, None])[:, :, 0],
        ),  # gap only
    ):
        changed = ConeProgram(one.A, b, c, one.P, one.cones)
        scaled = equilibration.apply(equilibration.Data(one.A, one.P, b, c), diagonals)
        point = x / E * sigma, y / D * sigma, s * D * sigma, torch.ones_like(sigma)
        units = residuals.Unscaling.of(scaled, diagonals, one.cone.equalities, scaled=True)
        ours = residuals.kkt_residual(residuals.kkt_norms(scaled, units, sigma, *point), (1.0, 1.0))
        terms = kkt_terms(changed, x, y, s)
        theirs = max(float(terms[name][0] / (1 + terms[name][1])) for name in ("primal", "dual", "gap"))
        assert float(ours) == pytest.approx(theirs, rel=1e-9)
        assert theirs > 1e-2


def test_termination_weights() -> None:
    one = program("SOCP", 1)
    for eps_abs, eps_rel in ((1e-3, 0.0), (0.0, 1e-3), (1e-5, 1e-3)):
        s = solve(one, "anderson-2", eps_abs=eps_abs, eps_rel=eps_rel, scale=1.0)
        assert s.statuses == [fp.Status.CONVERGED]
        size = max(float(v.abs().max()) for v in (one.b, s.s, one.A @ s.x))
        assert float(s.primal_residual) <= 1.0001 * (eps_abs + eps_rel * size)


def test_vanishing_tau_never_converges() -> None:
    """An infeasible program: tau goes to 0, and x / tau must not be called a solution."""
    A = np.array([[1.0], [-1.0]])
    infeasible = ConeProgram(A, np.array([-1.0, -1.0]), np.array([0.0]), cones={"l": 2})
    solution = solve(infeasible, None, eps_infeas=0.0, max_evaluations=2000)
    assert solution.statuses != [fp.Status.CONVERGED]
    assert solve(infeasible, None).statuses == [fp.Status.PRIMAL_INFEASIBLE]


@pytest.mark.parametrize("kind", ["SOCP", "QP"])
def test_gradients_agree_with_central_differences(kind: str) -> None:
    one = program(kind, 0)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(one.n, generator=generator, dtype=torch.float64)

    def loss(b: torch.Tensor, c: torch.Tensor, gradient: Any) -> torch.Tensor:
        changed = ConeProgram(one.A, b, c, one.P, one.cones)
        options: Any = {"eps_abs": 1e-11, "eps_rel": 1e-11, "max_evaluations": 1000, "scale": 1.0, "normalize": False}
        method = fp.accelerators.create("anderson-2", memory=20)
        return (solve(changed, method, gradient=gradient, **options).x * weights).sum()

    for argument, start in ((0, one.b), (1, one.c)):
        direction = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        gradient = torch.func.grad(loss, argnums=argument)(one.b, one.c, "implicit")
        shifted = [[one.b, one.c], [one.b, one.c]]
        for sign, arguments in zip((1, -1), shifted, strict=True):
            arguments[argument] = start + sign * 1e-6 * direction
        expected = (loss(*shifted[0], None) - loss(*shifted[1], None)) / 2e-6
        assert abs(float((gradient * direction).sum() - expected)) <= 1e-4 * (1 + abs(float(expected)))
        if argument == 0 or kind == "QP":
            assert abs(float(expected)) > 1e-3, "a zero derivative must not pass"


def test_gradient_of_a_degenerate_program_is_flagged() -> None:
    """Fewer active constraints than variables: the solution of this LP is not unique, its derivative not defined."""
    one = program("LP", 0)

    def loss(c: torch.Tensor) -> torch.Tensor:
        changed = ConeProgram(one.A, one.b, c, one.P, one.cones)
        return solve(changed, "anderson-1", eps_abs=1e-9, eps_rel=1e-9, scale=1.0, gradient="implicit").x.sum()

    with pytest.warns(fp.AdjointWarning, match="the program is degenerate"):
        torch.func.grad(loss)(one.c)


def test_linear_system_tiers() -> None:
    """Cholesky where it is accurate, refinement or LU where it is not; always the right solution."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, 12, 8, generator=generator, dtype=torch.float64)
    A[:, :, 7] = A[:, :, 6]  # rank deficient: H is held up by rho_x alone
    top, bottom = torch.randn(3, 8, generator=generator).double(), torch.randn(3, 12, generator=generator).double()
    kinds = set()
    for rho_x, weight in ((1e-1, 1.0), (1e-6, 1e-4), (1e-9, 1e-7)):
        R_y = torch.full((12,), weight, dtype=torch.float64)
        system = dense_systems.factor(A, None, R_y, rho_x)
        kinds.add((system.refined is not None, system.full is not None))
        p, q = system.solve(torch.cat([top, bottom], 1)).split([8, 12], 1)
        residual = torch.cat([rho_x * p + times(A.mT, q) - top, times(A, p) - R_y * q - bottom], 1)
        size = torch.cat([p, q], 1).abs().amax(1)
        assert (residual.abs().amax(1) <= 1e-10 * (1 + size)).all()
    assert len(kinds) > 1, kinds


def test_a_factor_that_lies_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.cholesky_solve
    monkeypatch.setattr(torch, "cholesky_solve", lambda b, factor: 1.5 * right(b, factor))
    monkeypatch.setattr(torch.linalg, "lu_solve", lambda lu, pivots, b: 0.7 * b)
    with pytest.raises(FactorizationError, match=r"set_num_threads"):
        solve(batch("LP", range(2)))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("factor", [1e100, 1e200, 1e-200])
def test_one_hopeless_instance_does_not_end_the_others(factor: float, normalize: bool) -> None:
    many = batch("QP", range(4))
    A = many.A.clone()
    A[1] *= factor
    bad = ConeProgram(A, many.b, many.c, many.P, many.cones)
    statuses = solve(bad, scale=1.0, max_evaluations=500, normalize=normalize).statuses
    assert [statuses[i] for i in (0, 2, 3)] == [fp.Status.CONVERGED] * 3
    assert factor < 1 or statuses[1] is not fp.Status.CONVERGED


@pytest.mark.parametrize("kind", KINDS)
def test_an_invalid_instance_leaves_its_neighbours_bitwise_unchanged(kind: str) -> None:
    """Although the instances have different patterns, which SCS's scaling counts."""
    many = batch(kind, range(5))
    b = many.b.clone()
    b[2, 0] = torch.nan
    poisoned = ConeProgram(many.A, b, many.c, many.P, many.cones)
    options: Any = {"eps_abs": 0, "eps_rel": 0, "max_evaluations": 20, "on_invalid": "mark"}
    clean, marked = solve(many, "anderson-2", **options), solve(poisoned, "anderson-2", **options)
    for part in "xys":
        assert torch.equal(getattr(clean, part)[[0, 1, 3, 4]], getattr(marked, part)[[0, 1, 3, 4]])
        assert torch.isnan(getattr(marked, part)[2]).all()


def test_gradients_under_vmap() -> None:
    one = program("QP", 0)
    c = one.c + 0.01 * torch.randn(3, one.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(c: torch.Tensor) -> torch.Tensor:
        changed = ConeProgram(one.A, one.b, c, one.P, one.cones)
        options: Any = {"eps_abs": 1e-10, "eps_rel": 1e-10, "scale": 1.0, "gradient": "implicit"}
        return solve(changed, "anderson-2", **options).x.square().sum()

    rows = torch.func.vmap(torch.func.grad(loss))(c)
    for i in range(3):
        assert torch.allclose(rows[i], torch.func.grad(loss)(c[i]), rtol=1e-5, atol=1e-7)
    assert (rows.abs().amax(1) > 1e-2).all()


def test_kkt_error_sees_every_condition() -> None:
    one = program("SOCP", 0)
    good = solve(one, "anderson-2", eps_abs=1e-10, eps_rel=0, scale=1.0)
    x, y, s = good.x, good.y, good.s
    assert kkt_error(one, x, y, s) < 1e-9
    assert kkt_error(one, x + 0.1, y, s) > 1e-3
    assert kkt_error(one, x, y + 0.1, s) > 1e-3
    # moving s along A keeps Ax + s = b but leaves the cone
    step = torch.ones_like(x)
    assert kkt_error(one, x + step, y, s - one.A @ step) > 1e-3
    assert kkt_error(one, x, torch.full_like(y, torch.nan), s) == torch.inf
    # only the slack is outside its cone, by 1, with size 1
    assert kkt_error(ConeProgram([[1.0]], [0.0], [0.0], cones={"l": 1}), [1.0], [0.0], [-1.0]) == 0.5
    # only the dual variable is outside its cone, by 3, with size 3
    assert kkt_error(ConeProgram([[0.0]], [0.0], [0.0], cones={"l": 1}), [0.0], [-3.0], [0.0]) == 0.75
    # only the gap is open: c'x = 2, and nothing to set against it but its own size
    free = ConeProgram([[0.0], [1.0]], [0.0, 2.0], [1.0], cones={"z": 1, "l": 1})
    assert kkt_error(free, [2.0], [0.0, 0.0], [0.0, 0.0]) == pytest.approx(2 / 3)
    assert kkt_error(one, x.numpy(), y.numpy(), s.numpy()) < 1e-9
    with pytest.raises(ValueError, match="y: expected shape"):
        kkt_error(one, x, y[1:], s)


def test_no_rows() -> None:
    """m = 0: an unconstrained quadratic."""
    P = np.diag([2.0, 4.0])
    free = ConeProgram(np.zeros((0, 2)), np.zeros(0), np.array([-2.0, 4.0]), P, cones={})
    solution = solve(free, "anderson-2", eps_abs=1e-9, eps_rel=0)
    assert np.allclose(solution.x, [1.0, -1.0], atol=1e-7)


def test_float32() -> None:
    found, cones = data("QP", 0)
    small = {k: torch.as_tensor(v.toarray() if k in "AP" else v, dtype=torch.float32) for k, v in found.items()}
    solution = solve(ConeProgram(**small, cones=cones), "anderson-2", eps_abs=1e-4, eps_rel=1e-4, scale=1.0)
    assert solution.x.dtype == torch.float32
    assert solution.statuses == [fp.Status.CONVERGED]


def changed(**parts: Any) -> dict[str, Any]:
    found, cones = data("QP", 0)
    dense = {k: v.toarray() if k in "AP" else v for k, v in found.items()}
    return {**dense, "cones": cones, **parts}


dense = changed()
nan_b = dense["b"].copy()
nan_b[3] = np.nan
skew = dense["P"].copy()
skew[0, 1] += 1
BAD = {
    "cones: expected the rows": {"cones": None},
    "cones: unknown key 'qq'": {"cones": {"z": 6, "l": 20, "qq": []}},
    "add up to 25, but b has m = 26": {"cones": {"z": 5, "l": 20}},
    "A: expected .26, 20.": {"A": dense["A"][:, 1:]},
    "P: expected .20, 20.": {"P": dense["P"][1:]},
    "b: expected 1 axes": {"b": dense["b"][None, None]},
    "b: expected finite numbers": {"b": nan_b},
    "A: expected finite numbers": {"A": np.where(dense["A"] > 1, np.inf, dense["A"])},
    "P: expected a symmetric": {"P": skew},
    "P: expected a positive semidefinite": {"P": -dense["P"]},
    "A, b, c, P: expected one dtype": {"b": torch.as_tensor(dense["b"], dtype=torch.float32)},
    "A: expected real numbers": {"A": dense["A"] + 0j},
    "A: expected numbers": {"A": "text"},
    "at least one variable": {"A": np.zeros((26, 0)), "c": np.zeros(0), "P": None},
    "batch sizes differ": {"b": np.stack([dense["b"]] * 2), "c": np.stack([dense["c"]] * 3)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_programs(message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        solve(ConeProgram(**changed(**BAD[message])))


def test_bad_instances_are_named_or_marked() -> None:
    many = batch("QP", range(4))
    P = many.P.clone()
    P[2] = -P[2]
    b = many.b.clone()
    b[1, 0] = torch.inf
    bad = ConeProgram(many.A, b, many.c, P, many.cones)
    with pytest.raises(ValueError, match=r"b: .*\[1\].*P: .*positive semidefinite.*\[2\]"):
        solve(bad)
    statuses = solve(bad, on_invalid="mark", scale=1.0).statuses
    assert [s.name for s in statuses] == ["CONVERGED", "INVALID", "INVALID", "CONVERGED"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale"),
        ({"alpha": 2.0}, "alpha"),
        ({"rho_x": -1.0}, "rho_x"),
        ({"zero_cone_factor": float("nan")}, "zero_cone_factor"),
        ({"tau_factor": float("inf")}, "tau_factor"),
        ({"eps_abs": -1.0}, "eps_abs"),
        ({"eps_abs": 1e-17, "eps_rel": 0.0}, "eps_abs, eps_rel: expected at least"),
        ({"eps_rel": float("nan")}, "eps_rel"),
        ({"scale": "1"}, "scale"),
        ({"alpha": True}, "alpha"),
        ({"normalize": "false"}, "normalize"),
        ({"adaptive_scale": "yes"}, "adaptive_scale"),
        ({"normalize": "both"}, "normalize"),
        ({"eps_infeas": -1.0}, "eps_infeas"),
        ({"linear_solver": "qr"}, "linear_solver"),
        ({"accelerator": "aa"}, "no accelerator named 'aa'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, LookupError), match=message):
        solve(program("LP", 0), **options)


def test_a_map_refuses_other_programs() -> None:
    with pytest.raises(ValueError, match="program: this map is for n = 20"):
        fp.solve(SCS.of(program("LP", 0)), program("SOCP", 0))
