"""Mixed precision: what it returns holds in float64, whatever float32 made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fixedpoint as fp
from fixedpoint.experiments.evaluation import generator
from maps.cones import ProductCone
from maps.scs import ConeProgram, kkt_error, mixed_precision, solve
from maps.scs.families.robust_kalman import RobustKalman
from tests.maps.scs.programs import program

SETTINGS: dict[str, Any] = {"normalize": "shared", "adaptive_scale": False, "scale": 2.0, "tau_factor": 100.0}


def kalman(batch: int = 12) -> ConeProgram:
    return RobustKalman().sample(batch, generator=generator(5, "test"))


@pytest.mark.parametrize("eps", [1e-3, 1e-6, 1e-9])
def test_the_error_that_is_asked_for_is_reached(eps: float) -> None:
    program = kalman()
    found = solve(program, "anderson-2", eps_abs=eps, eps_rel=eps, precision="mixed", **SETTINGS)
    assert found.x.dtype == torch.float64
    assert bool(found.converged.all())
    assert float(kkt_error(program, found.x, found.y, found.s).max()) <= 1.01 * eps
    exact = solve(program, "anderson-2", eps_abs=eps, eps_rel=eps, **SETTINGS)
    assert abs(int(found.evaluations.max()) - int(exact.evaluations.max())) <= 15


def test_what_float32_claims_holds_to_the_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_precision, "CARRIES", 1.05e-3)  # it stops a little above what is asked for
    program = kalman(256)
    found = solve(program, None, eps_abs=1e-3, eps_rel=1e-3, precision="mixed", **SETTINGS)
    assert bool(found.converged.all())
    assert float(kkt_error(program, found.x, found.y, found.s).max()) <= 1e-3 * (1 + 1e-9)


def test_a_claim_that_fails_in_float64_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_precision, "CARRIES", 0.3)  # float32 stops far too early
    program = kalman()
    found = solve(program, "anderson-2", eps_abs=1e-5, eps_rel=1e-5, precision="mixed", **SETTINGS)
    assert bool(found.converged.all())
    assert float(kkt_error(program, found.x, found.y, found.s).max()) <= 1.01e-5


def test_verdicts_are_those_of_float64() -> None:
    A = np.array([[1.0], [-1.0]])
    b = np.array([[1.0, -2.0], [1.0, 2.0], [1.0, 1.0]])  # x <= 1 and x >= 2; -2 <= x <= 1; -1 <= x <= 1
    program = ConeProgram(A, b, np.ones((3, 1)), cones={"l": 2})
    found = solve(program, eps_abs=1e-7, eps_rel=1e-7, precision="mixed")
    assert found.statuses == [fp.Status.PRIMAL_INFEASIBLE, fp.Status.CONVERGED, fp.Status.CONVERGED]
    np.testing.assert_allclose(found.x[1:], [[-2.0], [-1.0]], atol=1e-5)
    unbounded = solve(ConeProgram(A[:1], b[:, :1], np.ones((3, 1)), cones={"l": 1}), precision="mixed")
    assert unbounded.statuses == [fp.Status.DUAL_INFEASIBLE] * 3


def test_invalid_instances_and_warm_starts() -> None:
    program = kalman(4)
    b = program.b.clone()
    b[2] = torch.nan
    faulty = ConeProgram(program.A, b, program.c, program.P, program.cones)
    found = solve(faulty, precision="mixed", on_invalid="mark", eps_abs=1e-6, eps_rel=1e-6, **SETTINGS)
    assert [status.name for status in found.statuses] == ["CONVERGED", "CONVERGED", "INVALID", "CONVERGED"]
    assert bool(found.x[2].isnan().all())
    again = solve(program, precision="mixed", warm_start=found, eps_abs=1e-5, eps_rel=1e-5, **SETTINGS)
    assert again.warm_started.tolist() == [True, True, False, True]
    assert int(again.evaluations[0]) < int(found.evaluations[0])


def test_gradients_are_those_of_float64() -> None:
    program = kalman(3)

    def gradient(precision: Any) -> torch.Tensor:
        b = program.b.clone().requires_grad_()
        asked = ConeProgram(program.A, b, program.c, program.P, program.cones)
        solve(
            asked, precision=precision, gradient="implicit", eps_abs=1e-9, eps_rel=1e-9, **SETTINGS
        ).x.sum().backward()
        assert b.grad is not None
        return b.grad

    torch.testing.assert_close(gradient("mixed"), gradient("full"), rtol=1e-5, atol=1e-6)


def test_a_single_program_and_the_budget() -> None:
    single = program("SOCP", 0)
    found = solve(single, precision="mixed", eps_abs=1e-8, eps_rel=1e-8)
    assert found.statuses == [fp.Status.CONVERGED]
    assert found.x.shape == (single.n,)
    for budget in (1, 2, 7):
        short = solve(single, precision="mixed", eps_abs=1e-12, eps_rel=1e-12, max_evaluations=budget)
        assert int(short.evaluations) <= budget
        assert short.statuses == [fp.Status.MAX_EVALUATIONS]


def test_the_budget_holds_with_a_gradient_too() -> None:
    program = kalman(3)
    b = program.b.clone().requires_grad_()
    asked = ConeProgram(program.A, b, program.c, program.P, program.cones)
    for budget in (1, 2, 11, 100):
        found = solve(asked, precision="mixed", gradient="implicit", max_evaluations=budget, eps_abs=1e-9, **SETTINGS)
        assert int(found.evaluations.max()) <= budget


def test_a_callback_that_stops_is_obeyed() -> None:
    calls: list[int] = []

    def stop(progress: fp.Progress) -> bool:
        calls.append(progress.evaluations)
        return len(calls) == 2

    found = solve(kalman(), precision="mixed", callback=stop, eps_abs=1e-9, eps_rel=1e-9, **SETTINGS)
    assert calls == [1, 2]
    assert found.statuses == [fp.Status.MAX_EVALUATIONS] * 12
    assert found.evaluations.tolist() == [2] * 12


def test_inference_mode() -> None:
    program = kalman()
    with torch.inference_mode():
        inside = solve(program, precision="mixed", eps_abs=1e-6, eps_rel=1e-6, **SETTINGS)
    assert bool(inside.converged.all())


def test_chunks() -> None:
    program = kalman()
    options: dict[str, Any] = {"precision": "mixed", "eps_abs": 1e-8, "eps_rel": 1e-8, **SETTINGS}
    one, two = solve(program, **options), solve(program, chunk=5, workers=2, **options)
    torch.testing.assert_close(one.objective, two.objective, rtol=1e-6, atol=1e-6)
    assert torch.equal(one.status, two.status)


def test_what_makes_no_sense_is_refused() -> None:
    program = kalman(1)
    single = ConeProgram(*(t.float() for t in (program.A.to_dense(), program.b, program.c)), cones=program.cones)
    with pytest.raises(ValueError, match=r'^precision: "mixed" is for float64 programs, this one is torch\.float32$'):
        solve(single, precision="mixed")
    for options in ({"eps_abs": 0, "eps_rel": 0}, {"gradient": "unroll"}, {"gradient": fp.Truncated(3)}):
        with pytest.raises(ValueError, match=r'^precision: "mixed" needs a tolerance above 0, and gradient=None or'):
            solve(program, precision="mixed", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^precision: expected \"full\" or \"mixed\", got 'half'$"):
        solve(program, precision="half")  # type: ignore[arg-type]


@pytest.mark.parametrize("eliminate", [False, True])
def test_what_is_returned_is_in_the_cones(eliminate: bool) -> None:
    """Float32 projections are not: s and y are projected again before they are judged."""
    rng = np.random.default_rng(0)
    cone, n, count = ProductCone({"l": 3, "s": [3]}), 12, 100
    A, z = rng.standard_normal((9, n)), torch.as_tensor(rng.standard_normal((count, 9)))
    s = cone.project(z)
    y, x, root = (s - z).numpy(), rng.standard_normal((count, n)), rng.standard_normal((n, n // 2))
    P = root @ root.T + 0.5 * np.eye(n)
    program = ConeProgram(A, x @ A.T + s.numpy(), -(x @ P + y @ A), P=P, cones=cone.spec)
    accuracy = {"eps_abs": 1e-6, "eps_rel": 1e-6, "check_interval": 4, "adaptive_scale": False}
    found = solve(program, precision="mixed", eliminate=eliminate, **accuracy)
    error = kkt_error(program, found.x, found.y, found.s)
    assert found.converged.all()
    assert float(error.max()) <= 1e-6


def test_a_proof_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What float64 has proved to have no solution is not solved again."""
    A = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    b = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    program = ConeProgram(A, b, torch.ones(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64), {"l": 2})
    rows: list[int] = []
    again = mixed_precision.solve_batch

    def counted(finish: Any, map: Any, problem: Any, *arguments: Any, **options: Any) -> Any:
        rows.append(problem.batch)
        return again(finish, map, problem, *arguments, **options)

    monkeypatch.setattr(mixed_precision, "solve_batch", counted)
    found = solve(program, precision="mixed", eps_abs=1e-9, eps_rel=1e-9)
    assert found.statuses == [fp.Status.PRIMAL_INFEASIBLE, fp.Status.CONVERGED]
    assert rows == [2, 1], "the other one goes on in float64"
