"""Gradients through `solve`: they are those of the optimality conditions, for every cone, and say when they are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fixedpoint as fp
from maps.scs import ConeProgram, solve
from maps.scs.adjoint import vjp as adjoint
from tests.maps.scs.programs import batch
from tests.maps.scs.solved_programs import KINDS, cotangents, draw

TIGHT: Any = {"eps_abs": 1e-11, "eps_rel": 1e-11, "scale": 1.0, "max_evaluations": 5000}
STATIC: Any = {"adaptive_scale": False}
ADAPTED: Any = {"scale": 1e-3, "check_interval": 25}
"""Far enough from a good scale that the rule must move it."""


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in KINDS),
        ("SOCP", {"normalize": False}),
        ("mixed", {"normalize": "shared"}),
        ("QP", STATIC),
        ("QP", ADAPTED),
        ("mixed", ADAPTED),
    ],
)
def test_the_gradient_is_that_of_the_optimality_conditions(kind: str, settings: dict[str, Any]) -> None:
    solved = draw(kind, 3, worst=1e3)
    program, weights = solved.program, cotangents(solved)
    live = {name: getattr(program, name).clone().requires_grad_() for name in ("A", "b", "c")}
    if program.P is not None:
        live["P"] = program.P.clone().requires_grad_()
    solution = solve(ConeProgram(**live, cones=program.cones), gradient="implicit", **{**TIGHT, **settings})
    assert solution.converged.all()
    assert settings is not ADAPTED or bool((solution.evaluations > 100).all()), "the scale was never moved"
    sum((getattr(solution, part) * w).sum() for part, w in zip("xys", weights, strict=True)).backward()
    expected = adjoint.vjp(program, *solved.points, *weights)
    assert not expected.degenerate.any(), "a test of nothing"
    for name, leaf in live.items():
        exact = getattr(expected, name)
        size = exact.abs().amax()
        assert size > 1e-3
        assert float((leaf.grad - exact).abs().amax()) <= 1e-5 * float(size), name


def test_a_degenerate_program_is_flagged_by_its_instance() -> None:
    """Two LPs: one at a vertex, one whose whole edge is optimal."""
    A = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    c = torch.tensor([[1.0, 2.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    b = torch.ones(4, dtype=torch.float64, requires_grad=True)
    solution = solve(ConeProgram(A, b, c, cones={"l": 4}), gradient="implicit", eps_abs=1e-9, eps_rel=1e-9)
    with pytest.warns(fp.AdjointWarning, match=r"instance\(s\) 1 cannot be trusted: the program is degenerate"):
        solution.x.sum().backward()
    assert c.grad is not None
    assert b.grad is not None
    assert float(c.grad[0].abs().max()) < 1e-6, "a vertex does not move with c"


@pytest.mark.parametrize("name", ["A", "b"])
def test_a_neighbour_that_nobody_asks_about_spoils_nothing(name: str) -> None:
    program = batch("QP", range(2))
    A = torch.stack([program.A[0], 1e200 * program.A[0]])
    live = {"A": A, "b": program.b[0], "c": program.c[0]}
    live[name] = live[name].clone().requires_grad_()
    solution = solve(ConeProgram(**live, P=program.P[0], cones=program.cones), gradient="implicit", scale=1.0)
    assert solution.statuses[1] is not fp.Status.CONVERGED
    solution.x[0].sum().backward()
    assert torch.isfinite(live[name].grad).all()
    assert live[name].grad.abs().max() > 1e-3


def test_a_certificate_has_no_gradient_and_says_so() -> None:
    A = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    program = ConeProgram(A, b, torch.ones(1, dtype=torch.float64), cones={"l": 2})
    with pytest.warns(fp.AdjointWarning, match=r"instance\(s\) 1 cannot be trusted: it is PRIMAL_INFEASIBLE"):
        solve(program, gradient="implicit")


def test_forward_mode_says_what_to_use_instead() -> None:
    program = batch("QP", range(1))

    def of(c: torch.Tensor) -> torch.Tensor:
        return solve(ConeProgram(program.A, program.b, c, program.P, program.cones), gradient="implicit").x

    with pytest.raises(RuntimeError, match="use jacrev or vjp"):
        torch.func.jvp(of, (program.c,), (program.c,))


@pytest.mark.parametrize("kind", ["dense", "sparse", "cg"])
def test_unrolling_under_vmap(kind: str) -> None:
    program = batch("QP", range(1))
    b = program.b[0] + 0.01 * torch.arange(3.0, dtype=torch.float64)[:, None]

    def of(b: torch.Tensor) -> torch.Tensor:
        one = ConeProgram(program.A[0], b, program.c[0], program.P[0], program.cones)
        options: Any = {"linear_solver": kind, "adaptive_scale": False, "max_evaluations": 5}
        return solve(one, None, eps_abs=0, eps_rel=0, gradient="unroll", **options).x

    mapped = torch.func.vmap(of)(b)
    for i in range(3):
        assert torch.allclose(mapped[i], of(b[i]), rtol=0, atol=1e-9)


def test_first_derivatives_only() -> None:
    program = batch("QP", range(1))
    c = program.c.clone().requires_grad_()
    x = solve(ConeProgram(program.A, program.b, c, program.P, program.cones), gradient="implicit", **TIGHT).x
    (first,) = torch.autograd.grad(x.square().sum(), c, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        first.sum().backward()


@pytest.mark.parametrize("cone", [None, "l", "q"])
def test_a_gradient_where_c_and_all_duals_vanish(cone: str | None) -> None:
    """Minimize ||x - p||^2 as P on r = x - p: at the solution r, c and y are 0, which must be nobody's unit."""
    n = 3
    P = torch.diag(torch.tensor([0.0] * n + [2.0] * n, dtype=torch.float64))
    A = torch.cat([torch.eye(n), -torch.eye(n)], 1).double()
    b = torch.tensor([[0.3, -1.0, 2.0], [1e-3, 5.0, -0.1]], dtype=torch.float64)
    cones: dict[str, Any] = {"z": n}
    if cone is not None:  # x <= 100, or the length of x is at most 100: neither is active
        rows = torch.eye(n) if cone == "l" else torch.cat([torch.zeros(1, n), -torch.eye(n)])
        limits = [100.0] * n if cone == "l" else [100.0] + [0.0] * n
        A = torch.cat([A, torch.cat([rows, torch.zeros(len(rows), n)], 1).double()])
        b = torch.cat([b, torch.tensor([limits] * 2, dtype=torch.float64)], 1)
        cones |= {"l": n} if cone == "l" else {"q": [n + 1]}
    b = b.requires_grad_()
    program = ConeProgram(A, b, torch.zeros(2, 2 * n, dtype=torch.float64), P, cones)
    solve(program, gradient="implicit", eps_abs=1e-7, eps_rel=1e-7).x[:, :n].sum().backward()
    assert b.grad is not None
    torch.testing.assert_close(b.grad[:, :n], torch.ones(2, n, dtype=torch.float64))


def test_an_invalid_instance_does_not_spoil_what_the_batch_shares() -> None:
    P = torch.eye(2, dtype=torch.float64, requires_grad=True)
    c = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [-1.0, 0.5]], dtype=torch.float64)
    program = ConeProgram(torch.eye(2).double(), torch.full((2,), 9.0).double(), c, P, {"l": 2})
    found = solve(program, gradient="implicit", on_invalid="mark", eps_abs=1e-8, eps_rel=1e-8)
    assert found.statuses[1] == fp.Status.INVALID
    assert bool(found.objective[1].isnan())
    found.objective[found.converged].sum().backward()
    x = -c[[0, 2]]
    torch.testing.assert_close(P.grad, (x[:, :, None] * x[:, None]).sum(0) / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["A", "P"])
def test_unrolled_derivatives_at_the_zeros_of_a_dense_matrix(name: str) -> None:
    """Where the program is sparse enough to be condensed, too: its zeros are numbers like others."""
    n, rng = 60, torch.Generator().manual_seed(0)
    eye = torch.eye(n, dtype=torch.float64)
    parts = {"A": torch.cat([eye, -eye]), "P": eye}
    c = 0.5 * torch.randn(2, n, generator=rng, dtype=torch.float64)
    found = []
    for gradient in ("implicit", "unroll"):
        leaf = parts[name].clone().requires_grad_()
        here = {**parts, name: leaf}
        program = ConeProgram(here["A"], torch.ones(2, 2 * n, dtype=torch.float64), c, here["P"], {"l": 2 * n})
        settings: Any = {"eps_abs": 1e-9, "eps_rel": 1e-9, "adaptive_scale": False}
        (solve(program, "picard", gradient=gradient, **settings).x ** 3).sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad if name == "A" else leaf.grad + leaf.grad.mT)
    assert float(found[0][parts[name] == 0].abs().max()) > 1e-2
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
