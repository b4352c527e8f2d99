"""SCS's Anderson acceleration: the iterates of the scs 3.3.1 wheel, and what its safeguard promises."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import scs
import torch
from scipy import sparse

import fixedpoint as fp
from accelerators.scs_anderson import ScsAnderson, ScsAndersonState
from fixedpoint import Evaluation
from fixedpoint.checks import check_accelerator
from fixedpoint.tensors import pytrees
from maps.affine import Affine, AffineProblem, RandomAffine
from maps.scs import SCS, ConeProgram
from tests.maps.scs.programs import CONES, data

WHEEL = {
    "memory": "acceleration_lookback",
    "interval": "acceleration_interval",
    "regularization": "acceleration_regularization",
    "relaxation": "acceleration_relaxation",
}
"""Our settings by the names of the wheel's."""


class Point(NamedTuple):
    """What the wheel and we are compared in, after some iterations."""

    xys: np.ndarray
    accepted: int
    rejected: int


def of_the_wheel(found: dict[str, Any], cones: dict[str, Any], k: int, settings: dict[str, Any]) -> Point:
    parts = {**found, "P": sparse.triu(found["P"]).tocsc()} if "P" in found else found
    theirs = {WHEEL[name]: value for name, value in settings.items() if name in WHEEL}
    theirs |= {"acceleration_type_1": settings.get("kind", 1) == 1, "linear_solver": scs.LinearSolver.CPU_DENSE}
    endless = {"adaptive_scale": False, "eps_abs": 0, "eps_rel": 0, "eps_infeas": 0, "max_iters": k + 1}
    found = scs.SCS(parts, cones, verbose=False, **endless, **theirs).solve()
    info = found["info"]
    xys = np.concatenate([found[name] for name in "xys"])
    return Point(xys, info["accepted_accel_steps"], info["rejected_accel_steps"])


def of_ours(
    found: dict[str, Any], cones: dict[str, Any], counts: set[int], settings: dict[str, Any]
) -> dict[int, Point]:
    accelerator = ScsAnderson(**settings)
    program = ConeProgram(**found, cones=cones)
    map = SCS.of(program)
    context = map.setup(pytrees.batched(program, map.ranks))
    v, state = accelerator.init(map.initial(context), None)
    if (
        accelerator.interval == 1
    ):  # the wheel's first call is then at iteration 1, with iteration 0, which is not the map
        cold = torch.zeros_like(v).index_fill(1, torch.tensor([v.shape[1] - 1]), 1.0)
        state = state._replace(x=cold, calls=state.calls + 1)
    points, accepted, rejected = {}, 0, 0
    for k in range(1, max(counts) + 1):
        x = map.retract(v, context)
        fx, aux = map.evaluate(x, context)
        at, judged = Evaluation(x, fx, fx - x), bool(state.proposed)
        v, state = accelerator.step(at, state)
        emptied = int(state.calls) <= 1
        accepted, rejected = accepted + (judged and not emptied), rejected + (judged and emptied)
        if k in counts:
            points[k] = Point(torch.cat([*map.output(at, aux, context)], 1)[0].numpy(), accepted, rejected)
    return points


SETTINGS: list[dict[str, Any]] = [
    {},
    {"kind": 2},
    {"memory": 5, "regularization": 1e-4, "relaxation": 0.7},
    {"memory": 4, "interval": 3},
    {"kind": 2, "memory": 5, "interval": 2, "relaxation": 1.3},
    {"interval": 1},
    {"kind": 2, "memory": 5, "interval": 1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", CONES)
def test_iterates_of_the_wheel(kind: str, settings: dict[str, Any]) -> None:
    judged = 0
    for seed in (0, 2):
        found, cones = data(kind, seed)
        for k, ours in of_ours(found, cones, {20, 54, 55, 56, 60, 100}, settings).items():
            theirs = of_the_wheel(found, cones, k, settings)
            assert ours[1:] == theirs[1:], (seed, k)
            error = np.abs(ours.xys - theirs.xys).max() / (1 + np.abs(theirs.xys).max())
            assert error < (3e-8 if settings.get("interval") == 1 else 1e-8), (seed, k)
        judged += sum(ours[1:])
    assert judged > 0


def affine(size: int, batch: int = 4, rate: float = 0.9) -> AffineProblem:
    return RandomAffine(size, rate).sample(batch, generator=torch.Generator().manual_seed(0))


def full(size: int = 6, **settings: Any) -> tuple[Evaluation, ScsAndersonState, ScsAnderson]:
    """The evaluation of a first extrapolation, with the state that has to judge it."""
    accelerator, map, problem = ScsAnderson(memory=2, interval=1, **settings), Affine(size), affine(size)
    context = map.setup(problem)
    x, state = accelerator.init(map.initial(context), None)
    while not bool(state.proposed.all()):
        fx = map.forward(x, context)
        x, state = accelerator.step(Evaluation(x, fx, fx - x), state)
    fx = map.forward(x, context)
    return Evaluation(x, fx, fx - x), state, accelerator


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("safeguard", [1.0, 0.5])
def test_a_worse_residual_is_rejected_and_no_other(kind: Any, safeguard: float) -> None:
    at, state, accelerator = full(kind=kind, safeguard=safeguard)
    limit = safeguard * (state.fx - state.x).norm(dim=1) / at.residual.norm(dim=1)
    factor = limit * torch.tensor([0.99, 1.01, 1e6, torch.nan])
    following, after = accelerator.step(at._replace(residual=factor[:, None] * at.residual), state)
    assert after.calls.tolist() == [4, 1, 1, 1]
    assert torch.equal(following[1:], state.fx[1:])
    assert torch.equal(after.x[1:], state.x[1:])
    assert after.proposed.tolist() == [True, False, False, False]
    assert not torch.equal(following[0], state.fx[0])


def test_steps_are_counted_and_due_at_the_interval() -> None:
    problem = affine(8)
    path = fp.unroll(Affine(8), problem, ScsAnderson(memory=2, interval=3, safeguard=1e9), steps=22)
    steps = [k + 1 for k in range(21) if not torch.equal(path.x[k + 1], path.fx[k])]
    assert steps == [8, 11, 14, 17, 20], "calls before evaluations 3, 6, 9 (counted from 1) fill the memory"


@pytest.mark.parametrize("kind", [1, 2])
def test_the_step_solves_the_equation_of_its_type(kind: Any) -> None:
    """(X'Y + r I) gamma = X'g and x+ = beta (f - D gamma) + (1 - beta) (x - S gamma), one instance in NumPy."""
    _, state, accelerator = full(kind=kind, regularization=1e-2, relaxation=0.7)
    following = full(kind=kind, regularization=1e-2, relaxation=0.7)[0].x
    S, Y, x, f = (t[0].numpy() for t in (state.dx.mT, state.dg.mT, state.x, state.fx))
    X = S if kind == 1 else Y
    ridge = 1e-2 * np.linalg.norm(X) * np.linalg.norm(Y)
    gamma = np.linalg.solve(X.T @ Y + ridge * np.eye(2), X.T @ (x - f))
    expected = 0.7 * (f - (S - Y) @ gamma) + 0.3 * (x - S @ gamma)
    assert np.allclose(following[0], expected, rtol=1e-12, atol=1e-13)
    assert accelerator.max_weight > np.linalg.norm(gamma)


def test_too_large_weights_are_not_used_and_the_memory_starts_anew() -> None:
    problem, accelerator = affine(6), ScsAnderson(interval=1, memory=2, max_weight=1e-9)
    path = fp.unroll(Affine(6), problem, accelerator, steps=9)
    assert torch.equal(path.x, fp.unroll(Affine(6), problem, None, steps=9).x)
    _, state = accelerator.init(path.x[0], None)
    calls = []
    for x, fx in zip(path.x, path.fx, strict=True):
        _, state = accelerator.step(Evaluation(x, fx, fx - x), state)
        assert not state.proposed.any()
        calls.append(int(state.calls[0]))
    assert calls == [1, 2, 0] * 3


def test_memory_is_at_most_the_length_of_x() -> None:
    problem = affine(3)
    long, exact = (fp.unroll(Affine(3), problem, ScsAnderson(memory=m, interval=1), steps=12).x for m in (10, 3))
    assert torch.equal(long, exact)
    assert not torch.equal(exact, fp.unroll(Affine(3), problem, None, steps=12).x)


@pytest.mark.parametrize("options", [{"kind": 1}, {"kind": 2}, {"regularization": 0.0, "relaxation": 0.8}], ids=str)
def test_laws_where_it_extrapolates_at_once(options: dict[str, Any]) -> None:
    check_accelerator(ScsAnderson(memory=3, interval=1, **options))


@pytest.mark.parametrize("kind", [1, 2])
def test_differentiable(kind: Any) -> None:
    problem = affine(4, batch=2)

    def last(b: torch.Tensor) -> torch.Tensor:
        return fp.unroll(Affine(4), AffineProblem(problem.A, b), ScsAnderson(2, 1, kind, safeguard=1e9), steps=7).fx[-1]

    assert torch.autograd.gradcheck(last, problem.b.clone().requires_grad_(), eps=1e-6, atol=1e-6)


def test_vmapped_is_batched() -> None:
    """Where values cannot be read, every step does all the work, with the same answer."""
    problem, accelerator = affine(4, batch=3), ScsAnderson(memory=2, interval=2)

    def last(factor: torch.Tensor) -> torch.Tensor:
        return fp.unroll(Affine(4), AffineProblem(problem.A, factor * problem.b), accelerator, steps=12).x[-1]

    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert torch.allclose(torch.func.vmap(last)(factors), torch.stack([last(f) for f in factors]), rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "memory"),
        ({"interval": 1.5}, "interval"),
        ({"kind": 3}, "kind"),
        ({"regularization": -1.0}, "regularization"),
        ({"relaxation": 2.0}, "relaxation"),
        ({"safeguard": 0.0}, "safeguard"),
        ({"max_weight": float("nan")}, "max_weight"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScsAnderson(**options)
