"""The loop and its front door: stopping, freezing, compaction, counting, isolation, bad input."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.tensors import pytrees
from maps.affine import Affine, AffineProblem, RandomAffine
from maps.elastic_net import ElasticNet, ElasticNetProblem, RandomElasticNet

ACCELERATORS = fp.accelerators.names()


def contraction(rates: list[float], size: int = 3) -> AffineProblem:
    """Instances that need very different numbers of evaluations."""
    A = torch.stack([rate * torch.eye(size, dtype=torch.float64) for rate in rates])
    return AffineProblem(A, torch.ones(len(rates), size, dtype=torch.float64))


class Counting(Affine):
    """Counts the rows it really evaluates."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.rounds: list[int] = []

    def forward(self, x: Tensor, context: Any) -> Tensor:
        self.rounds.append(x.shape[0])
        return super().forward(x, context)


def test_each_instance_stops_for_itself() -> None:
    problem = contraction([0.1, 0.5, 0.9])
    solution = fp.solve(Affine(3), problem, tolerance=1e-8)
    assert (solution.status == fp.Status.CONVERGED).all()
    counts = solution.evaluations.tolist()
    assert counts[0] < counts[1] < counts[2]
    # ||x_k+1 - x_k|| = rate^k sqrt(3), so the count is known
    for rate, count in zip((0.1, 0.5, 0.9), counts, strict=True):
        assert rate ** (count - 1) * 3**0.5 <= 1e-8 < rate ** (count - 2) * 3**0.5
    assert torch.allclose(solution.x[:, 0], 1 / (1 - torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)), atol=1e-6)


def test_residual_is_that_of_the_returned_point() -> None:
    family = RandomAffine(6)
    problem = family.sample(9, generator=torch.Generator().manual_seed(0))
    for name in ACCELERATORS:
        solution = fp.solve(family.map, problem, name, tolerance=1e-5, max_evaluations=40)
        again = (problem.A @ solution.x[:, :, None])[:, :, 0] + problem.b - solution.x
        assert torch.allclose(torch.linalg.vector_norm(again, dim=1), solution.residual, rtol=1e-9, atol=1e-14)


def test_evaluations_counted_are_evaluations_done() -> None:
    rates = [0.1] * 12 + [0.9] * 4
    map = Counting(3)
    solution = fp.solve(map, contraction(rates), tolerance=1e-8)
    assert len(map.rounds) == int(solution.evaluations.max())
    assert map.rounds[0] == 16
    assert map.rounds[-1] == 4, "finished instances leave the batch"


def test_finished_instances_keep_their_numbers_when_the_batch_shrinks() -> None:
    rates = [0.9 if i % 4 == 3 else 0.1 + 0.02 * i for i in range(16)]
    problem = contraction(rates)
    together = fp.solve(Affine(3), problem, "anderson-2", tolerance=1e-9)
    for i in range(len(rates)):
        alone = fp.solve(Affine(3), AffineProblem(problem.A[i], problem.b[i]), "anderson-2", tolerance=1e-9)
        assert alone.x.shape == (3,)
        assert torch.allclose(alone.x, together.x[i], rtol=1e-12, atol=1e-12)
        assert alone.evaluations == together.evaluations[i]


def test_many_compactions_keep_every_row_in_its_place() -> None:
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    rates = torch.linspace(0.05, 0.98, 48, dtype=torch.float64)[order] ** 0.5
    problem = RandomAffine(4, rate=0.97).sample(48, generator=torch.Generator().manual_seed(0))
    problem = problem._replace(A=rates[:, None, None] * problem.A)
    options: Any = {"tolerance": 1e-9, "max_evaluations": 150}
    for name, memory in ((None, {}), ("anderson-2", {"memory": 1}), ("safeguarded", {"memory": 1})):
        method = None if name is None else fp.accelerators.create(name, **memory)
        map = Counting(4)
        together = fp.solve(map, problem, method, **options)
        assert len(set(map.rounds)) >= 3, "the batch shrank more than once"
        for i in range(48):
            alone = fp.solve(Affine(4), AffineProblem(problem.A[i], problem.b[i]), method, **options)
            assert torch.allclose(alone.x, together.x[i], rtol=1e-9, atol=1e-10)
            assert torch.allclose(alone.output, together.output[i], rtol=1e-9, atol=1e-10)
            assert torch.allclose(alone.residual, together.residual[i], rtol=1e-3, atol=1e-12)
            assert alone.status == together.status[i]
            assert abs(int(alone.evaluations - together.evaluations[i])) <= (0 if method is None else 1)


def test_a_nan_residual_is_a_divergence() -> None:
    class Lost(Affine):
        def assess(self, evaluation: fp.Evaluation, aux: Any, context: Any) -> fp.Assessment:
            residual = torch.full_like(evaluation.x[:, 0], torch.nan)
            return fp.Assessment(residual, torch.zeros_like(residual, dtype=torch.int64))

    assert fp.solve(Lost(3), contraction([0.5])).statuses == [fp.Status.DIVERGED]


def test_truncated_gradients_leave_the_numbers_alone() -> None:
    problem = contraction([0.5, 0.9])
    plain = fp.solve(Affine(3), problem, tolerance=1e-3)
    b = problem.b.clone().requires_grad_()
    cut = fp.solve(Affine(3), problem._replace(b=b), tolerance=1e-3, gradient=fp.Truncated(3))
    assert torch.equal(plain.x, cut.x.detach())
    assert torch.equal(plain.residual, cut.residual)
    cut.x.sum().backward()
    assert torch.allclose(b.grad[0], torch.full((3,), 1 + 0.5 + 0.25, dtype=torch.float64))


@pytest.mark.parametrize("name", ACCELERATORS)
def test_batched_equals_one_by_one(name: str) -> None:
    family = RandomElasticNet(8)
    problem = family.sample(5, generator=torch.Generator().manual_seed(3))
    together = fp.unroll(family.map, problem, name, steps=12)
    for i in range(5):
        alone = fp.unroll(family.map, ElasticNetProblem(*(t[i] for t in problem)), name, steps=12)
        # 1e-12 per evaluation, for the 12 of them
        assert torch.allclose(alone.fx[:, 0], together.fx[:, i], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_nan_instance_leaves_neighbours_bitwise_unchanged(name: str) -> None:
    family = RandomElasticNet(8)
    problem = family.sample(6, generator=torch.Generator().manual_seed(3))
    poisoned = problem._replace(b=problem.b.clone())
    poisoned.b[2, 1] = torch.nan
    clean = fp.solve(family.map, problem, name, tolerance=0, max_evaluations=25)
    marked = fp.solve(family.map, poisoned, name, tolerance=0, max_evaluations=25, on_invalid="mark")
    others = [0, 1, 3, 4, 5]
    assert torch.equal(clean.x[others], marked.x[others])
    assert marked.statuses[2] is fp.Status.INVALID
    assert torch.isnan(marked.x[2]).all()
    assert torch.isnan(marked.residual[2])
    assert marked.evaluations[2] == 0


def test_invalid_instances_are_named_or_marked() -> None:
    family = RandomElasticNet(4)
    problem = family.sample(5, generator=torch.Generator().manual_seed(0))
    problem.b[1, 0] = torch.nan
    problem.mu[3] = -1.0
    with pytest.raises(ValueError, match=r"b: .*NaN.* instance\(s\) \[1\].*mu: .*instance\(s\) \[3\]"):
        fp.solve(family.map, problem)
    statuses = fp.solve(family.map, problem, "anderson-2", on_invalid="mark").statuses
    assert [s.name for s in statuses] == ["CONVERGED", "INVALID", "CONVERGED", "INVALID", "CONVERGED"]
    problem.b[:] = torch.inf
    with pytest.raises(ValueError, match="b: "):
        fp.solve(family.map, problem, on_invalid="mark")


class Expanding(Affine):
    """Diverges to infinity."""

    def forward(self, x: Tensor, context: Any) -> Tensor:
        return 1e200 * super().forward(x, context)


class Resting(Affine):
    """Stands still with a residual it calls large."""

    def assess(self, evaluation: fp.Evaluation, aux: Any, context: Any) -> fp.Assessment:
        residual = torch.ones_like(evaluation.x[:, 0])
        return fp.Assessment(residual, torch.zeros_like(residual, dtype=torch.int64))


def test_statuses() -> None:
    problem = contraction([0.5, 0.9])
    assert fp.solve(Affine(3), problem, max_evaluations=30).statuses == [
        fp.Status.CONVERGED,
        fp.Status.MAX_EVALUATIONS,
    ]
    assert fp.solve(Expanding(3), problem).statuses == [fp.Status.DIVERGED] * 2
    assert fp.solve(Resting(3), problem).statuses == [fp.Status.STALLED] * 2


def test_budget_without_tolerance_is_used_up() -> None:
    solution = fp.solve(Affine(3), contraction([0.5, 0.5]), tolerance=0, max_evaluations=17)
    assert solution.evaluations.tolist() == [17, 17]
    assert (solution.status == fp.Status.MAX_EVALUATIONS).all()


def test_callback_sees_the_whole_batch_and_stops() -> None:
    seen: list[fp.Progress] = []

    def callback(progress: fp.Progress) -> bool:
        seen.append(progress)
        return progress.evaluations == 25

    solution = fp.solve(Affine(3), contraction([0.1] * 12 + [0.95] * 4), tolerance=1e-8, callback=callback)
    assert [p.evaluations for p in seen] == list(range(1, 26))
    assert all(p.residual.shape == p.status.shape == (16,) for p in seen)
    assert solution.statuses[0] is fp.Status.CONVERGED
    assert solution.statuses[-1] is fp.Status.MAX_EVALUATIONS
    assert solution.evaluations[-1] == 25


def test_start() -> None:
    problem = contraction([0.5, 0.9])
    answer = torch.tensor([[2.0] * 3, [10.0] * 3], dtype=torch.float64)
    assert fp.solve(Affine(3), problem, start=answer, tolerance=1e-9).evaluations.tolist() == [1, 1]


def test_single_and_batch() -> None:
    problem = AffineProblem(0.5 * torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    solution = fp.solve(Affine(2), problem)
    assert solution.x.shape == (2,)
    assert solution.output.shape == (2,)
    assert solution.status.shape == solution.residual.shape == solution.evaluations.shape == ()
    shared = AffineProblem(problem.A, torch.ones(4, 2, dtype=torch.float64))
    assert fp.solve(Affine(2), shared).x.shape == (4, 2)


def test_dtype_is_kept() -> None:
    problem = AffineProblem(0.5 * torch.eye(2), torch.ones(3, 2))
    for name in ACCELERATORS:
        solution = fp.solve(Affine(2), problem, name, tolerance=1e-5)
        assert solution.x.dtype == solution.residual.dtype == torch.float32
        assert solution.converged.all()


def test_global_state_is_left_alone() -> None:
    before = torch.get_rng_state(), torch.get_default_dtype()
    family = RandomAffine(4)
    fp.solve(family.map, family.sample(3, generator=torch.Generator().manual_seed(0)), "anderson-1")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_default_dtype()


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Halving(fp.FixedPointMap[Pair, Pair]):
    """The simplest kind of map: no ranks, the problem is the context."""

    signature = fp.Signature(size=2)

    def initial(self, context: Pair) -> Tensor:
        return torch.zeros_like(context.left)

    def forward(self, x: Tensor, context: Pair) -> Tensor:
        return 0.5 * x + context.left + context.right


def test_simplest_map() -> None:
    pair = Pair(torch.ones(9, 2, dtype=torch.float64), torch.ones(9, 2, dtype=torch.float64))
    solution = fp.solve(Halving(), pair, "anderson-2")
    assert torch.allclose(solution.output, torch.full((9, 2), 4.0, dtype=torch.float64))
    assert Halving().featurize(pair).shape == (9, 4)


ones = torch.ones(2, 3, dtype=torch.float64)
BAD = {
    "problem: .*without any": (None, {}),
    "A: expected 2 axes": (AffineProblem(ones[0], ones), {}),
    "batch sizes differ": (AffineProblem(torch.zeros(4, 3, 3, dtype=torch.float64), ones), {}),
    "b: expected .3,. per instance": (AffineProblem(torch.zeros(3, 3, dtype=torch.float64), ones[:, :2]), {}),
    "empty batch": (AffineProblem(torch.zeros(3, 3, dtype=torch.float64), ones[:0]), {}),
    "one dtype.*A: torch.float32, b: torch.float64": (AffineProblem(torch.zeros(3, 3), ones), {}),
    "tolerance: expected at least": (contraction([0.5]), {"tolerance": 1e-17}),
    "tolerance: expected": (contraction([0.5]), {"tolerance": float("nan")}),
    "max_evaluations: expected a whole number >= 1, got 0": (contraction([0.5]), {"max_evaluations": 0}),
    "max_evaluations: expected a whole number": (contraction([0.5]), {"max_evaluations": 2.5}),
    "floating-point tensors": (AffineProblem(torch.zeros(3, 3).long(), torch.ones(2, 3).long()), {}),
    "start: expected a tensor": (contraction([0.5]), {"start": [1.0, 2.0, 3.0]}),
    "start: expected shape .1, 3.": (contraction([0.5]), {"start": ones}),
    "start: expected finite": (contraction([0.5]), {"start": torch.full((1, 3), torch.nan, dtype=torch.float64)}),
    "start: expected the problem's dtype": (contraction([0.5]), {"start": torch.zeros(1, 3)}),
    "gradient: expected None": (contraction([0.5]), {"gradient": "unrolled"}),
    "at least 1 step": (contraction([0.5]), {"gradient": fp.Truncated(0)}),
    "on_invalid": (contraction([0.5]), {"on_invalid": "ignore"}),
    "accelerator: expected": (contraction([0.5]), {"accelerator": 3}),
    "did you mean 'anderson-2'": (contraction([0.5]), {"accelerator": "andersen-2"}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_names_the_argument(message: str) -> None:
    problem, options = BAD[message]
    with pytest.raises((ValueError, TypeError, LookupError), match=message):
        fp.solve(Affine(3), problem, **options)


def test_tolerance_floor_follows_the_dtype() -> None:
    problem = AffineProblem(0.5 * torch.eye(2), torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"torch\.float32"):
        fp.solve(Affine(2), problem, tolerance=1e-8)


def test_unroll_records_every_evaluation() -> None:
    problem = contraction([0.5, 0.9])
    trajectory = fp.unroll(Affine(3), problem, None, steps=7)
    assert trajectory.x.shape == trajectory.fx.shape == trajectory.output.shape == (7, 2, 3)
    assert trajectory.residual.shape == (7, 2)
    assert torch.equal(trajectory.x[1:], trajectory.fx[:-1])
    with pytest.raises(ValueError, match="steps"):
        fp.unroll(Affine(3), problem, None, steps=0)


def test_relaxation_beyond_averagedness_is_refused() -> None:
    map = ElasticNet(4, step=1.8)
    family = RandomElasticNet(4)
    problem = family.sample(2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"relaxation: 1\.5 times the map's averagedness"):
        fp.solve(map, problem, fp.accelerators.create("relaxed", relaxation=1.5))


def test_leaves_are_named() -> None:
    assert list(pytrees.tensors(contraction([0.5]))) == ["A", "b"]
    assert list(pytrees.tensors(ones)) == ["problem"]
    assert list(pytrees.tensors({"a": [ones, None], "b": Pair(ones, ones)})) == ["a.0", "b.left", "b.right"]
