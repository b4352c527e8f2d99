"""The state of the inequalities alone: the same numbers as the whole map has in the limit, for less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import fixedpoint as fp
from fixedpoint.checks import check_map
from maps.scs import SCS, ConeProgram, kkt_error, solve
from maps.scs.iteration import residuals
from maps.scs.linear_systems import FactorizationError
from tests.maps.scs.programs import batch

KINDS = ("QP", "LP", "SOCP", "SDP")
STATIC: dict[str, Any] = {"adaptive_scale": False, "scale": 1.0}


def walked(map: SCS, program: ConeProgram, steps: int) -> tuple[Any, fp.Evaluation, Any]:
    """(context, an evaluation some steps from the cold start, its by-products)."""
    context = map.setup(program)
    x = map.initial(context)
    for _ in range(steps):
        x = map.forward(map.retract(x, context), context)
    x = map.retract(x, context)
    fx, aux = map.evaluate(x, context)
    return context, fp.Evaluation(x, fx, fx - x), aux


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [True, "shared", False])
def test_the_iterates_are_those_of_the_whole_map_in_the_limit(kind: str, normalize: bool | str) -> None:
    program = batch(kind, range(3))
    few = SCS.of(program, normalize=normalize, scale=1.0, eliminate=True)
    all_ = SCS.of(program, normalize=normalize, scale=1.0, rho_x=1e-9, zero_cone_factor=1e9)
    assert few.signature.size == 1 + program.m - program.cone.equalities
    one, two = (m.dehomogenized(at.fx, context) for m in (few, all_) for context, at, _ in [walked(m, program, 12)])
    torch.testing.assert_close(one, two[:, -one.shape[1] :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [True, "shared", False])
def test_checks_by_what_the_system_says_are_checks_by_products(kind: str, normalize: bool | str) -> None:
    program = batch(kind, range(3))
    map = SCS.of(program, normalize=normalize, scale=1.0, eliminate=True)
    context, _, aux = walked(map, program, 7)
    whole = map._whole(aux, context)
    x, y, tau = whole.u.split([map.n, map.m, 1], 1)
    s = whole.slack(map._metric(context))[:, map.n : -1]
    shared, rows = context.shared, context.rows
    data = rows.data if shared.A is None else rows.data._replace(A=shared.A, P=shared.P)
    expected = residuals.kkt_norms(data, rows.units, rows.scaling.sigma, x, y, s, tau)
    for name, found, size in zip(expected._fields, map._norms(aux, context), expected, strict=True):
        torch.testing.assert_close(found, size, rtol=1e-6, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["full", "mixed"])
def test_it_solves_what_the_whole_map_solves(kind: str, precision: str) -> None:
    program = batch(kind, range(2))
    found = solve(program, eliminate=True, precision=precision, eps_abs=1e-7, eps_rel=1e-7, **STATIC)
    known = solve(program, eps_abs=1e-8, eps_rel=1e-8, check_interval=5)
    assert bool((found.status == fp.Status.CONVERGED).all())
    assert float(kkt_error(program, found.x, found.y, found.s).max()) <= 1.01e-7
    torch.testing.assert_close(found.objective, known.objective, rtol=1e-4, atol=1e-5)


def test_a_shared_matrix_and_one_for_each_instance_give_the_same(kalman: ConeProgram) -> None:
    own = ConeProgram(
        kalman.A.to_dense().expand(kalman.batch, -1, -1), kalman.b, kalman.c, kalman.P.to_dense(), kalman.cones
    )
    settings = {"eliminate": True, "normalize": "shared", "scale": 3.0}
    points = [walked(SCS.of(program, **settings), program, 10)[1].fx for program in (kalman, own)]
    torch.testing.assert_close(*points, rtol=1e-8, atol=1e-8)


def test_single_precision_follows_double_precision(kalman: ConeProgram) -> None:
    settings = {"eliminate": True, "normalize": False, "scale": 3.0}
    double, single = (
        walked(SCS.of(kalman, dtype=dtype, **settings), kalman, 15)[1].fx for dtype in (torch.float64, torch.float32)
    )
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_a_batch_shares_is_taken_over_by_the_next(kalman: ConeProgram, dtype: torch.dtype) -> None:
    map = SCS.of(kalman, eliminate=True, normalize="shared", dtype=dtype)
    earlier = map.prepare(kalman)
    assert earlier is not None
    b = kalman.b + 0.1
    following = ConeProgram(kalman.A, b, kalman.c, kalman.P, kalman.cones)
    again = map.setup_shared(following, earlier)
    assert again.shared.response.kept is earlier.response.kept
    torch.testing.assert_close(map.initial(again), map.initial(map.setup(following)), rtol=1e-6, atol=1e-6)


def test_a_check_reads_no_more_than_it_needs_and_sees_the_same(kalman: ConeProgram) -> None:
    map = SCS.of(kalman, eliminate=True, normalize="shared")
    context, _, aux = walked(map, kalman, 7)
    response = context.shared.response
    assert 0 < len(response.read) < response.free.shape[1] / 2
    everything = context._replace(shared=context.shared._replace(response=response._replace(read=None, seen=None)))
    for found, expected in zip(map._norms(aux, context), map._norms(aux, everything), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_is_differentiated_is_read_in_full() -> None:
    P = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)).requires_grad_()
    A, b = -torch.eye(3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    c = torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64).expand(2, 3)
    program = ConeProgram(A, b, c, P, {"l": 3})
    map = SCS.of(program, normalize=False, eliminate=True)
    assert map.setup(program).shared.response.read is None
    assert map.setup(ConeProgram(A, b, c, P.detach(), {"l": 3})).shared.response.read.tolist() == [0, 1]


def test_a_single_instance_in_float32_whose_sparse_factor_is_refused() -> None:
    """One of the equations nearly repeats another: no sparse factor is exact for that, a dense inverse is."""
    rng, n = np.random.default_rng(1), 100
    chain = sparse.diags([np.ones(n), -np.ones(n - 1)], [0, 1]).tocsr()[:40]
    nearly = chain[:1] + sparse.csr_matrix(([2e-4], ([0], [50])), shape=(1, n))
    A = sparse.vstack([chain, nearly, sparse.eye(n), -sparse.eye(n)])
    x = rng.standard_normal(n)
    b = np.concatenate([chain @ x, nearly @ x, x + 1, 1 - x])
    program = ConeProgram(A, b[None], rng.standard_normal((1, n)), sparse.eye(n), {"z": 41, "l": 2 * n})
    settings: Any = {"eliminate": True, "normalize": "shared", "adaptive_scale": False}
    found = [solve(program, precision=precision, **settings) for precision in ("mixed", "full")]
    assert all(one.statuses == [fp.Status.CONVERGED] for one in found)
    assert np.abs(found[0].x - found[1].x).max() < 1e-2


def test_what_a_check_reads_is_that_of_the_rows_at_hand(kalman: ConeProgram) -> None:
    map = SCS.of(kalman, eliminate=True, normalize="shared")
    earlier = map.setup(kalman)
    equations = kalman.cone.equalities
    zero = (kalman.b[:, :equations] == 0).all(0).nonzero()[0, 0]
    b = kalman.b.index_fill(1, zero, 1.0)
    again = map.setup_shared(ConeProgram(kalman.A, b, kalman.c, kalman.P, kalman.cones), map.prepare(kalman))
    place = kalman.n + int(zero)
    assert place in again.shared.response.read.tolist()
    assert place not in earlier.shared.response.read.tolist()


def test_gradients_do_not_depend_on_what_the_state_is() -> None:
    found = []
    for eliminate in (False, True):
        program = batch("QP", range(3))
        b = program.b.clone().requires_grad_()
        live = ConeProgram(program.A, b, program.c, program.P, program.cones)
        accuracy = {"eps_abs": 1e-9, "eps_rel": 1e-9, "gradient": "implicit"}
        solution = solve(live, eliminate=eliminate, **accuracy, **STATIC)
        solution.x.square().sum().backward()
        found.append(b.grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_the_laws_hold() -> None:
    program = batch("SOCP", range(4))
    report = check_map(SCS.of(program, eliminate=True, scale=1.0), program)
    assert report.passed, str(report)


def test_a_start_is_what_it_was(kalman: ConeProgram) -> None:
    settings = {"eliminate": True, "normalize": False, "scale": 3.0, "adaptive_scale": False}
    cold = solve(kalman, "picard", eps_abs=1e-6, eps_rel=1e-6, **settings)
    warm = solve(kalman, "picard", eps_abs=1e-6, eps_rel=1e-6, warm_start=cold, **settings)
    assert int(warm.evaluations.max()) <= 2 < int(cold.evaluations.min())


def test_equations_that_repeat_each_other_are_refused_or_solved() -> None:
    """Two equal equations: their duals are not determined; nothing that is returned as converged is wrong."""
    A = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    b, c = torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), torch.tensor([1.0, 2.0]).double()
    program = ConeProgram(A, b, c, cones={"z": 2, "l": 2})
    try:
        found = solve(program, eliminate=True, **STATIC)
    except FactorizationError:
        return
    assert found.statuses != [fp.Status.CONVERGED] or float(kkt_error(program, found.x, found.y, found.s)) < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eliminate": 1}, "eliminate: expected True or False"),
        ({"eliminate": True, "adaptive_scale": True}, "eliminate: it needs a scale that stays"),
        ({"eliminate": True, "linear_solver": "cg"}, 'eliminate: not with linear_solver="cg"'),
        ({"weights": [1.0]}, "weights: expected 5 numbers"),
        ({"weights": [1.0, -1.0, 1.0, 1.0, 1.0]}, "weights: expected positive numbers, got -1.0 for inequality 1"),
        ({"weights": [1.0, 2.0, 1.0, 2.0, 1.0]}, "weights: expected one weight for all rows of a block"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCS(4, {"z": 1, "l": 2, "q": [3]}, **settings)


@pytest.mark.parametrize("eliminate", [False, True])
def test_weights_change_the_metric_and_not_the_solution(eliminate: bool) -> None:
    program = batch("QP", range(3))
    count = program.m - program.cone.equalities
    weights = torch.linspace(0.5, 2.0, count).tolist()
    map = SCS.of(program, weights=weights, scale=2.0, normalize=False, eliminate=eliminate)
    R = map.metric(map.setup(program))[:, -1 - count : -1]
    torch.testing.assert_close(R, torch.tensor(weights, dtype=R.dtype).expand_as(R) / 2.0)
    plain = SCS.of(program, scale=2.0, normalize=False, eliminate=eliminate)
    assert "weights" in map.signature.coordinates
    assert map.signature.hash != plain.signature.hash
    one, two = (
        solve(program, weights=w, eliminate=eliminate, eps_abs=1e-8, eps_rel=1e-8, **STATIC) for w in (weights, None)
    )
    torch.testing.assert_close(one.x, two.x, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def kalman() -> ConeProgram:
    """A few tracks, which share their matrices."""
    return fp.families.create("robust-kalman").sample(6, generator=torch.Generator().manual_seed(0))


def test_ten_digits_are_within_reach(kalman: ConeProgram) -> None:
    settings = {"eliminate": True, "normalize": False, "scale": 2.5, "tau_factor": 100.0, "adaptive_scale": False}
    found = solve(kalman, eps_abs=3e-10, eps_rel=3e-10, **settings)
    assert bool((found.status == fp.Status.CONVERGED).all())
    assert float(kkt_error(kalman, found.x, found.y, found.s).max()) <= 3.1e-10


def test_without_inequalities_there_is_nothing_to_leave_out() -> None:
    generator = torch.Generator().manual_seed(0)
    A, b, c = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 5), (2, 3), (2, 5)))
    program = ConeProgram(A, b, c, P=torch.eye(5, dtype=torch.float64), cones={"z": 3})
    found = solve(program, eliminate=True, **STATIC)
    assert bool((found.status == fp.Status.CONVERGED).all())


def test_a_single_instance_does_without_a_response(kalman: ConeProgram) -> None:
    """It solves with the factor itself; others that share its matrices do not take over what it lacks."""
    settings = {"eliminate": True, "normalize": "shared", "eps_abs": 1e-8, "eps_rel": 1e-8, **STATIC}
    one = ConeProgram(kalman.A, kalman.b[:1], kalman.c if kalman.c.ndim == 1 else kalman.c[:1], kalman.P, kalman.cones)
    map = SCS.of(one, eliminate=True, normalize="shared")
    lone = map.setup(one)
    assert lone.shared.response is None
    prepared = map.prepare(one)
    assert prepared is not None
    assert map.setup_shared(one, prepared).shared.system is prepared.system
    assert map.setup_shared(kalman, prepared).shared.response is not None
    alone, among = solve(one, "picard", **settings), solve(kalman, "picard", **settings)
    torch.testing.assert_close(alone.x[0], among.x[0], rtol=1e-6, atol=1e-7)
    assert int(alone.evaluations[0]) == int(among.evaluations[0])
