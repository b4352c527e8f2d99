"""When a solve looks: checks every so often, verdicts that must repeat, maps that adapt, starts from an output."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint import Adaptation, Assessment, Check, Context, Evaluation, FixedPointMap, Signature, Status


class Halving(NamedTuple):
    b: Tensor  # (B, 2)


class Rows(NamedTuple):
    b: Tensor
    scale: Tensor  # (B, 1), of the coordinates of x


class Scaled(FixedPointMap[Halving, Context]):
    """x <- x / 2 + scale * b, whose output x / scale does not depend on the scale; claims what `claims` says."""

    def __init__(self, claims: dict[int, Status] | None = None, adapt_at: int | None = None) -> None:
        self.signature = Signature(size=2)
        self.claims, self.adapt_at = claims or {}, adapt_at
        self.assessed: list[int] = []
        self.since: list[int] = []
        self.evaluations = 0

    def setup(self, problem: Halving) -> Context:
        return Context(Rows(problem.b, torch.ones_like(problem.b[:, :1])), None, problem)

    def initial(self, context: Context) -> Tensor:
        self.evaluations = 0
        return torch.zeros_like(context.rows.b)

    def resume(self, output: Tensor, context: Context) -> Tensor:
        return output * context.rows.scale

    def forward(self, x: Tensor, context: Context) -> Tensor:
        self.evaluations += 1
        return x / 2 + context.rows.scale * context.rows.b

    def assess(self, evaluation: Evaluation, aux: Any, context: Context) -> Assessment:
        self.assessed.append(self.evaluations)
        residual = (evaluation.residual / context.rows.scale).abs().amax(1)
        claim = self.claims.get(self.evaluations, Status.RUNNING)
        status = torch.full_like(residual, Status.RUNNING, dtype=torch.int64)
        return Assessment(residual, torch.where(torch.arange(len(status)) == 0, claim, status))

    def adapt(self, at: Evaluation, aux: Any, context: Context, check: Check) -> Adaptation | None:
        self.since.append(check.evaluations)
        if self.evaluations != self.adapt_at:
            return None
        changed = torch.arange(len(at.x)) == 1
        factor = torch.where(changed, 100.0, 1.0)[:, None].to(at.x.dtype)
        rows = context.rows._replace(scale=context.rows.scale * factor)
        return Adaptation(context._replace(rows=rows), at.x * factor, at.fx * factor, changed)

    def output(self, evaluation: Evaluation, aux: Any, context: Context) -> Tensor:
        return evaluation.fx / context.rows.scale


B = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(("first", "budget", "expected"), [(5, 12, [5, 8, 11, 12]), (2, 8, [2, 5, 8]), (9, 4, [4])])
def test_the_first_check_may_come_later_than_the_others(first: int, budget: int, expected: list[int]) -> None:
    map = Scaled()
    checks: Any = {"check_interval": 3, "first_check": first}
    solution = fp.solve(map, Halving(B), None, tolerance=0.0, max_evaluations=budget, **checks)
    assert map.assessed == expected
    assert map.since == [b - a for a, b in itertools.pairwise([0, *expected])][:-1], "a map is told how long it was"
    assert solution.evaluations.tolist() == [budget] * 3


def test_checks_come_every_so_often_and_at_the_end() -> None:
    map = Scaled()
    seen: list[int] = []
    solution = fp.solve(
        map, Halving(B), tolerance=1e-4, check_interval=4, callback=lambda p: seen.append(p.evaluations)
    )
    assert map.assessed == seen == [4, 8, 12, 16]
    assert (solution.evaluations % 4 == 0).all()
    assert solution.converged.all()
    map = Scaled()
    short = fp.solve(map, Halving(B), tolerance=1e-12, max_evaluations=6, check_interval=4)
    assert map.assessed == [4, 6]
    assert short.statuses == [Status.MAX_EVALUATIONS] * 3
    assert (short.evaluations == 6).all()


def test_an_invalid_instance_is_marked_at_the_first_check() -> None:
    spoilt = B.clone()
    spoilt[0, 0] = torch.nan
    solution = fp.solve(Scaled(), Halving(spoilt), tolerance=1e-4, check_interval=5, on_invalid="mark")
    assert solution.statuses == [Status.INVALID, Status.CONVERGED, Status.CONVERGED]


@pytest.mark.parametrize("verdict", [Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE])
def test_a_verdict_stands_when_two_checks_agree(verdict: Status) -> None:
    other = Status.PRIMAL_INFEASIBLE if verdict == Status.DUAL_INFEASIBLE else Status.DUAL_INFEASIBLE
    once = fp.solve(Scaled({3: verdict, 5: verdict}), Halving(B), tolerance=1e-4)
    assert once.converged.all()
    changing = fp.solve(Scaled({3: verdict, 4: other}), Halving(B), tolerance=1e-4)
    assert changing.converged.all()
    twice = fp.solve(Scaled({3: verdict, 4: verdict}), Halving(B), tolerance=1e-4)
    assert twice.statuses == [verdict, Status.CONVERGED, Status.CONVERGED]
    assert int(twice.evaluations[0]) == 4
    at_the_end = fp.solve(Scaled({5: verdict}), Halving(B), tolerance=1e-9, max_evaluations=5)
    assert at_the_end.statuses[0] is Status.MAX_EVALUATIONS


def test_convergence_outranks_a_verdict() -> None:
    claims = dict.fromkeys(range(1, 100), Status.PRIMAL_INFEASIBLE)
    solved = fp.solve(Scaled(claims), Halving(B), tolerance=1e-3, check_interval=20)
    assert solved.converged.all()


@pytest.mark.parametrize("accelerator", [None, "anderson-2", "safeguarded"])
def test_a_map_may_change_its_coordinates(accelerator: str | None) -> None:
    fixed = fp.solve(Scaled(), Halving(B), accelerator, tolerance=1e-10)
    adapted = fp.solve(Scaled(adapt_at=1), Halving(B), accelerator, tolerance=1e-10)
    assert adapted.converged.all()
    assert torch.allclose(adapted.output, fixed.output, rtol=0, atol=1e-8)
    assert torch.allclose(adapted.output, 2 * B, rtol=0, atol=1e-8)
    assert torch.allclose(adapted.x[1], 200 * B[1], rtol=0, atol=1e-6), "row 1 ends in its new coordinates"
    assert torch.equal(adapted.x[[0, 2]], fixed.x[[0, 2]]), "the others do not notice"


def test_the_plain_iteration_goes_on_where_it_was_when_coordinates_change() -> None:
    fixed = fp.solve(Scaled(), Halving(B), tolerance=0, max_evaluations=10)
    adapted = fp.solve(Scaled(adapt_at=3), Halving(B), tolerance=0, max_evaluations=10)
    assert torch.allclose(adapted.output, fixed.output, rtol=1e-13, atol=0)


class Named(NamedTuple):
    point: Tensor


class WithOutput(Scaled):
    def output(self, evaluation: Evaluation, aux: Any, context: Context) -> Any:
        return Named(super().output(evaluation, aux, context))

    def resume(self, output: Named, context: Context) -> Tensor:
        return output.point * context.rows.scale


def test_a_solve_resumes_from_an_output_of_its_own_kind() -> None:
    first = fp.solve(WithOutput(), Halving(B), tolerance=1e-8)
    again = fp.solve(WithOutput(), Halving(B), tolerance=1e-7, start=first.output)
    assert (again.evaluations == 1).all()
    with pytest.raises(ValueError, match=r"start: point: expected \(3, k\), got \(2, 2\)"):
        fp.solve(WithOutput(), Halving(B), start=Named(first.output.point[:2]))
    with pytest.raises(TypeError, match="start: expected a tensor or an output of the map, got str"):
        fp.solve(WithOutput(), Halving(B), start="cold")


def test_a_map_that_cannot_resume_says_so() -> None:
    class Plain(Scaled):
        resume = FixedPointMap.resume

    with pytest.raises(TypeError, match="start: Plain starts from tensors"):
        fp.solve(Plain(), Halving(B), start=Named(B))


class Pairs(Scaled):
    """With an output that no empty batch has."""

    def output(self, evaluation: Evaluation, aux: Any, context: Context) -> Tensor:
        return evaluation.fx.reshape(len(evaluation.fx), -1)


@pytest.mark.parametrize("invalid", [False, True])
def test_outputs_are_made_of_rows_that_finish_never_of_none(invalid: bool) -> None:
    b = B.clone()
    b[1] = torch.nan if invalid else b[1] * 1e6  # later than the others, if at all
    solution = fp.solve(Pairs(), Halving(b), None, tolerance=1e-6, on_invalid="mark")
    good = torch.tensor([True, not invalid, True])
    assert solution.converged.tolist() == good.tolist()
    assert torch.allclose(solution.output[good], 2 * b[good], rtol=1e-5)
