"""Learned secant pairs: nothing without weights, everything where they are right, harmless where they are not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from accelerators.neural import Secants
from accelerators.neural.secants import DECADES, RIDGE, SecantsState
from fixedpoint.learning.learned import Examples
from fixedpoint.solve.loop import Iteration, resolve, roll
from fixedpoint.tensors import pytrees
from maps.affine import Affine, AffineProblem
from maps.scs import SCS
from tests.accelerators.learners import FAMILY, evaluations, examples, problems, scrambled
from tests.maps.scs.programs import batch as programs

SIZE = 8


def made(map: fp.FixedPointMap = FAMILY.map, **options: Any) -> Secants:
    return Secants(**{"memory": 4, "pairs": 3, "steps": 8, **options}).bind(map.signature)


def anderson(**options: Any) -> fp.Accelerator:
    return fp.accelerators.create("anderson-2", **{"memory": 4, **options})


def affine(rate: float = 0.95, batch: int = 6) -> tuple[Affine, AffineProblem]:
    """One matrix, many right-hand sides: the secants of one are those of all."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    b = torch.randn(batch, SIZE, generator=generator, dtype=torch.float64)
    return Affine(SIZE), AffineProblem(rate * A / torch.linalg.matrix_norm(A, 2), b)


def plain(map: fp.FixedPointMap, problem: Any, steps: int = 12) -> Examples:
    context = map.setup(problem)
    path = roll(Iteration(map, context, resolve(None)), steps)
    return Examples(path.x, path.fx - path.x, None, None)


def ridges(method: Secants, value: float) -> Secants:
    with torch.no_grad():
        method.log_ridge.fill_(math.log10(value / RIDGE) / DECADES)
    return method


@pytest.mark.parametrize("start", [0, 2])
def test_untrained_it_is_anderson_bit_for_bit(start: int) -> None:
    many = programs("QP", range(3))
    for map, problem in ((FAMILY.map, problems()), (SCS.of(many), many)):
        ours = fp.unroll(map, problem, made(map, start=start), steps=14)
        assert torch.equal(ours.x, fp.unroll(map, problem, anderson(start=start), steps=14).x)


def test_a_pair_with_a_huge_ridge_is_ignored_and_one_with_a_small_one_is_not() -> None:
    method = scrambled(made())
    with torch.no_grad():
        method.gain.zero_()
    theirs = fp.unroll(FAMILY.map, problems(), anderson(), steps=8)
    ignored = fp.unroll(FAMILY.map, problems(), ridges(method, 1e30), steps=8)
    assert torch.allclose(ignored.x, theirs.x, rtol=1e-9, atol=1e-9)
    heeded = fp.unroll(FAMILY.map, problems(), ridges(method, 1e-3), steps=8)
    assert (heeded.x[1] - theirs.x[1]).abs().max() > 1e-3


def test_every_evaluation_and_pair_has_a_ridge_of_its_own() -> None:
    method = scrambled(made())
    base = fp.unroll(FAMILY.map, problems(), method, steps=10).x
    for pair in (0, 2):
        changed = scrambled(made())
        with torch.no_grad():
            changed.log_ridge[3, pair] += 1
        moved = (fp.unroll(FAMILY.map, problems(), changed, steps=10).x - base).abs().amax((1, 2)) > 1e-9
        assert moved.tolist()[:5] == [False] * 4 + [True], "the fourth evaluation's step"


def test_the_step_is_the_joint_least_squares_of_history_and_pairs() -> None:
    """Against the same problem with its ridges as rows, solved by torch.linalg.lstsq, in a metric; then the gains."""
    method = ridges(scrambled(made(pairs=2, memory=3)), 0.3)
    weights = torch.rand(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    seen = evaluations(2, 3)
    _, state = method.init(torch.zeros(2, 5, dtype=torch.float64), None, weights)
    for at in seen:
        x, state = method.step(at, state)
    dr, df = (method.secants * method.units[:, None]).detach().double()
    for row in range(2):
        r, f = ([getattr(at, name)[row] for at in seen] for name in ("residual", "fx"))
        Y = torch.stack([r[1] - r[0], r[2] - r[1], *dr], dim=1)
        F = torch.stack([f[1] - f[0], f[2] - f[1], *df], dim=1)
        root = weights[row].sqrt()[:, None]
        size = (root * Y).norm(dim=0)
        ridge = torch.diag(torch.tensor([1e-10, 1e-10, 0.3, 0.3], dtype=torch.float64).sqrt())
        left = torch.cat([root * Y / size, ridge])
        right = torch.cat([root[:, 0] * r[2], torch.zeros(4, dtype=torch.float64)])
        gamma = torch.linalg.lstsq(left, right[:, None]).solution[:, 0] / size
        left_over = method.gain[2].detach().double() * (r[2] - Y @ gamma)
        assert torch.allclose(x[row], f[2] - F @ gamma + left_over, rtol=1e-6, atol=1e-8)
        assert (F @ gamma).norm() > 1e-3 * f[2].norm()
        assert left_over.norm() > 1e-4 * f[2].norm()


def test_secants_that_are_right_solve_an_affine_map_at_once() -> None:
    map, problem = affine()
    method = made(map, pairs=SIZE, memory=10)
    identity = torch.eye(SIZE, dtype=torch.float64)
    with torch.no_grad():
        method.secants[0], method.secants[1] = (problem.A - identity).mT, problem.A.mT
    ridges(method, 1e-10)
    theirs = fp.solve(map, problem, anderson(memory=10), tolerance=1e-6)
    ours = fp.solve(map, problem, method, tolerance=1e-6)
    assert ours.converged.all()
    assert ours.evaluations.max() <= 3
    assert theirs.evaluations.min() >= SIZE


def test_fitted_on_other_instances_of_the_same_matrix_it_is_faster_at_once() -> None:
    map, problem = affine()
    _, training = affine(batch=40)
    method = made(map, pairs=SIZE, memory=10)
    method.fit(plain(map, training._replace(b=training.b[6:])))
    dr, df = (method.secants * method.units[:, None]).detach().double()
    assert torch.allclose(dr @ torch.linalg.inv(problem.A - torch.eye(SIZE).double()).mT @ problem.A.mT, df, atol=1e-3)
    theirs, ours = (
        fp.solve(map, problem, a, tolerance=1e-4).evaluations for a in (anderson(memory=10), ridges(method, 1e-6))
    )
    assert ours.max() < theirs.min()


def test_the_fit_takes_what_there_is_and_leaves_the_random_state_alone() -> None:
    """More pairs than coordinates: the rest stays zero. No differences at all: all of them."""
    method, before = made(pairs=7), torch.get_rng_state()
    method.fit(examples())
    assert torch.equal(torch.get_rng_state(), before)
    used = method.secants.detach().abs().amax(2)
    assert bool((used[:, :5] > 0).all())
    assert not bool(used[:, 5:].any())
    again = made(pairs=7)
    again.fit(examples())
    assert torch.equal(again.secants, method.secants)
    plane = torch.randn(2, 5, generator=torch.Generator().manual_seed(1)).double()
    flat = examples()._replace(x=examples().x[:, :, :2] @ plane, residual=examples().residual[:, :, :2] @ plane)
    method.fit(flat)
    used = method.secants.detach().abs().amax(2)
    assert bool((used[:, :2] > 0.1).all())
    assert not bool(used[:, 2:].any()), "differences in a plane have two directions; the rest is rounding"
    still = examples()._replace(x=torch.ones(8, 20, 5).double(), residual=torch.zeros(8, 20, 5).double())
    method.fit(still)
    assert not bool(method.secants.any())
    assert bool((method.units > 0).all())


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**40])
def test_the_answer_scales_with_the_evaluations(factor: float) -> None:
    method, scaled = scrambled(made()), []
    for scale in (1.0, factor):
        _, state = method.init(torch.zeros(3, 5, dtype=torch.float64), None)
        for at in evaluations(3, 6):
            x, state = method.step(fp.Evaluation(*(scale * t for t in at)), state)
        scaled.append(x / scale)
    assert torch.allclose(scaled[0], scaled[1], rtol=1e-9)


def test_at_the_solution_nothing_moves() -> None:
    method = scrambled(made(), size=3.0)
    x = torch.ones(3, 5, dtype=torch.float64)
    rest = fp.Evaluation(x, x, torch.zeros_like(x))
    for seen in ([], evaluations(3, 4)):
        _, state = method.init(x, None)
        for at in seen:
            _, state = method.step(at, state)
        for _ in range(3):
            following, state = method.step(rest, state)
            assert torch.equal(following, x)


def step_of(method: Secants, at: fp.Evaluation, state: SecantsState) -> Tensor:
    return method.step(at, state)[0]


def test_after_its_steps_and_from_a_cold_start_anderson_goes_on_alone() -> None:
    method = ridges(scrambled(made(steps=3)), 1e-2)
    _, state = method.init(torch.zeros(3, 5, dtype=torch.float64), None)
    cold, theirs = method.restart(torch.zeros(3, 5, dtype=torch.float64)), anderson()
    kinds = [[(t.shape, t.dtype) for t in pytrees.tensors(s).values()] for s in (state, cold)]
    assert kinds[0] == kinds[1]
    _, own = theirs.init(torch.zeros(3, 5, dtype=torch.float64), None)
    for k, at in enumerate(evaluations(3, 6)):
        x, state = method.step(at, state)
        y, cold = method.step(at, cold)
        expected, own = theirs.step(at, own)
        assert torch.equal(y, expected)
        assert torch.equal(x, expected) == (k >= 3), k
    assert method.learned_steps == 3


def test_instances_may_be_at_different_places() -> None:
    method = ridges(scrambled(made(steps=5)), 1e-2)
    _, state = method.init(torch.zeros(3, 5, dtype=torch.float64), None)
    for at in evaluations(3, 3)[:2]:
        _, state = method.step(at, state)
    at = evaluations(3, 3)[2]
    mixed = step_of(method, at, state._replace(seen=torch.tensor([2, 5, 9])))
    learned, over = step_of(method, at, state), step_of(method, at, state._replace(seen=torch.full((3,), 5)))
    assert torch.allclose(mixed, torch.cat([learned[:1], over[1:]]), rtol=1e-9)
    assert (learned - over).abs().amax(1).min() > 1e-6


def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path: Any) -> None:
    method = made()
    method.fit(examples())
    method = scrambled(method)
    loaded = fp.load(fp.save(method, tmp_path / "secants.safetensors"))
    assert torch.equal(*(fp.unroll(FAMILY.map, problems(), a, steps=12).x for a in (method, loaded)))
    assert (loaded.pairs, loaded.memory, loaded.steps) == (3, 4, 8)


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"steps": 0}, {"memory": 0}, {"start": -1}, {"pairs": 2.0}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Secants(**wrong)


class OneMatrix(fp.ProblemFamily):
    """Right-hand sides of one matrix."""

    def __init__(self) -> None:
        self.map, self.problem = affine()

    def sample(self, batch: int, *, generator: torch.Generator) -> AffineProblem:
        return self.problem._replace(b=torch.randn(batch, SIZE, generator=generator, dtype=torch.float64))


def test_trained_on_a_family_it_is_ahead_of_anderson() -> None:
    family = OneMatrix()
    options = {"secants": {"pairs": SIZE - 2}}
    trained = fp.train(family, "secants", options=options, horizon=6, updates=30, instances=64, batch=16)
    problem = family.sample(32, generator=torch.Generator().manual_seed(1))
    ours, theirs = (fp.solve(family.map, problem, a, tolerance=1e-3) for a in (trained, "anderson-2"))
    assert ours.converged.all()
    assert ours.evaluations.double().mean() < theirs.evaluations.double().mean() - 1
