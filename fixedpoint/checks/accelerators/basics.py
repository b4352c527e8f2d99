"""The laws of accelerators on single steps: structure, purity, independent rows, finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fixedpoint.checks.accelerators.case import BATCH, AcceleratorCase, Moment, accelerator_law, held, named
from fixedpoint.checks.compare import cast, changed, changed_rows, clone, distance, global_state, with_first
from fixedpoint.checks.report import Violation
from fixedpoint.context import select_rows
from fixedpoint.solution import Evaluation
from fixedpoint.tensors import pytrees

COUPLED = "something reduces over the batch axis (a norm, .max() or .all() without dim=1?)"
_DEPTHS = (0, 1, 3, 12)
"""Steps after which single steps are examined."""


@accelerator_law("state-structure")
def state_structure(case: AcceleratorCase) -> None:
    """States keep names, shapes and dtypes from step to step, and every tensor has a row per instance."""
    for metric in case.metrics:
        moments = case.rollout(30, metric=metric)
        first = moments[0].before
        for name, t in pytrees.tensors(first).items():
            if t.shape[:1] != (BATCH,):
                raise Violation(f"state ({name}): expected a row for each of {BATCH} instances, got {tuple(t.shape)}")
        kind = {n: (tuple(t.shape), t.dtype) for n, t in named(moments[0].at.x, first).items()}
        for number, moment in enumerate(moments, 1):
            now = {n: (tuple(t.shape), t.dtype) for n, t in named(moment.x, moment.after).items()}
            if now != kind:
                names = sorted(n for n in now.keys() | kind.keys() if now.get(n) != kind.get(n))
                raise Violation(
                    f"step {number}: {names[0]} was {kind.get(names[0])}, is {now.get(names[0])}: the loop freezes and "
                    "drops rows, so a state must keep its shape; use a ring buffer and a count"
                )


@accelerator_law("dtype")
def dtype(case: AcceleratorCase) -> None:
    """Points and floating states keep the dtype of x, in single and in double precision."""
    for kind in (torch.float32, torch.float64):
        for number, moment in enumerate(case.rollout(4, cast(case.problem, kind)), 1):
            for name, t in named(moment.x, moment.after).items():
                if name == "x" and t.dtype != kind:
                    raise Violation(
                        f"step {number}: x is {t.dtype} for evaluations of {kind} (a constant, a .double()?)"
                    )
                if t.dtype == torch.float64 and kind == torch.float32:
                    raise Violation(f"step {number}: {name} is float64 where the evaluations are float32")


@accelerator_law("pure")
def pure(case: AcceleratorCase) -> None:
    """Nothing is remembered outside the state: repeated and interleaved runs are bit for bit the same."""
    inside = held(case.accelerator)
    other = case.map.sample(BATCH, rate=0.5, seed=9)
    alone = case.rollout(8), case.rollout(8, other)
    mixed: tuple[list[Moment], list[Moment]] = ([], [])
    current = [case.begin(case.problem), case.begin(other)]
    for _ in range(8):
        for run, problem in enumerate((case.problem, other)):
            at = case.evaluation(current[run][0], problem)
            mixed[run].append(Moment(at, current[run][1], *case.accelerator.step(at, current[run][1])))
            current[run] = mixed[run][-1].x, mixed[run][-1].after
    for a, b in zip(alone[0] + alone[1], mixed[0] + mixed[1], strict=True):
        if names := changed(named(a.x, a.after), named(b.x, b.after)):
            raise Violation(f"{names[0]} depends on other runs: random numbers, or state kept outside `state`?")
    after = held(case.accelerator)
    for path in inside.keys() | after.keys():
        old, new = inside.get(path), after.get(path)
        same = (
            changed({"": old}, {"": new}) == [] if isinstance(old, Tensor) and isinstance(new, Tensor) else old == new
        )
        if not same:
            raise Violation(f"running it changed its attribute {path}: keep what changes in the state")


@accelerator_law("inputs-untouched")
def inputs_untouched(case: AcceleratorCase) -> None:
    """Neither `init` nor `step` writes into its arguments."""
    x0, features = case.map.initial(case.problem), case.map.featurize(case.problem)
    given: dict[str, Any] = {"x0": x0, "features": features, "metric": case.metrics[1]}
    before = clone(given)
    case.accelerator.init(x0, features if case.accelerator.uses_features else None, case.metrics[1])
    touched = changed(before, given)
    for moment in case.rollout(6):
        given = pytrees.tensors({"at": moment.at, "state": moment.before})
        before = clone(given)
        case.accelerator.step(moment.at, moment.before)
        touched += changed(before, given)
    if touched:
        raise Violation(f"{touched[0]} changed: the accelerator writes in place into its inputs")


@accelerator_law("global-state")
def untouched_globals(case: AcceleratorCase) -> None:
    """Random states, the default dtype and the like stay as they are."""
    with torch.enable_grad():
        before = global_state()
        case.rollout(4)
        after = global_state()
    if names := [name for name in before if before[name] != after[name]]:
        raise Violation(f"{', '.join(names)} changed: use a generator of your own, restore what you set")


@accelerator_law("rows-independent")
def rows_independent(case: AcceleratorCase) -> None:
    """Row i of a point and of a state depends on row i only: bit for bit at a fixed batch."""
    _starts_independent(case)
    for problem, metric in zip((case.easy, case.problem), case.metrics, strict=True):
        moments = case.rollout(max(_DEPTHS) + 1, problem, metric)
        for depth in _DEPTHS:
            moment = moments[depth]
            before = named(moment.x, moment.after)
            for what, at, state in _disturbed(moment):
                try:
                    after = named(*case.accelerator.step(at, state))
                except Exception as error:
                    raise Violation(
                        f"step raises {type(error).__name__} when row 0 is {what}: {error} - one diverged instance "
                        "would end the solve of all others"
                    ) from error
                for name, old in before.items():
                    rows = torch.nonzero(changed_rows(old, after[name])[1:]).flatten()
                    if rows.numel():
                        raise Violation(f"row {int(rows[0]) + 1} of {name} changed when row 0 was {what}: {COUPLED}")
            for what, index in (("permuted", torch.arange(BATCH).roll(1)), ("taken out", torch.tensor([2, 0]))):
                x, _ = case.accelerator.step(*select_rows((moment.at, moment.before), index))
                if bool((distance(x, moment.x[index]) > _tolerance(case)).any()):
                    raise Violation(f"after {depth} steps the answer changes when instances are {what}: {COUPLED}")


def _starts_independent(case: AcceleratorCase) -> None:
    """The same of `init`."""
    x0, features = case.map.initial(case.problem), case.map.featurize(case.problem)
    given = features if case.accelerator.uses_features else None
    before = named(*case.accelerator.init(x0 + 1, given, case.metrics[1]))
    spoilt = None if given is None else with_first(given, 1e3)
    after = named(*case.accelerator.init(with_first(x0 + 1, 1e3), spoilt, case.metrics[1]))
    for name, old in before.items():
        rows = torch.nonzero(changed_rows(old, after[name])[1:]).flatten()
        if rows.numel():
            raise Violation(f"row {int(rows[0]) + 1} of the start's {name} changed with the start of row 0: {COUPLED}")


def _tolerance(case: AcceleratorCase) -> float:
    """How far a row may move with the batch around it: rounding, of single precision where a network works in it."""
    single = any(isinstance(t, Tensor) and t.dtype == torch.float32 for t in held(case.accelerator, 12).values())
    return 1e-4 if single else 1e-8


def _disturbed(moment: Moment) -> Iterator[tuple[str, Evaluation, Any]]:
    """What the accelerator saw, with row 0 spoilt: (how, evaluation, state)."""
    for value in (torch.nan, 1e200, 0.0):
        at, state = (pytrees.transform(lambda t, v=value: with_first(t, v), tree) for tree in moment[:2])
        yield f"set to {value:g}", at, state
    x, fx, residual = moment.at
    for factor in (10, 1e-3):
        turned = -factor * residual[:1]
        at = Evaluation(x, torch.cat([x[:1] + turned, fx[1:]]), torch.cat([turned, residual[1:]]))
        yield f"given {factor:g} times the opposite residual", at, moment.before


@accelerator_law("finite-at-solution")
def finite_at_solution(case: AcceleratorCase) -> None:
    """Finite where the residual is exactly zero and where the same evaluation comes again and again."""
    x = case.map.sample(BATCH, rate=0.5, seed=5).b
    ordinary = case.rollout(6)
    at_rest = Evaluation(x, x, torch.zeros_like(x))
    same = case.evaluation(x, case.problem)
    for what, evaluations in (
        ("the residual is exactly zero", [at_rest] * 25),
        ("the same evaluation is repeated", [same] * 25),
        ("the residual becomes exactly zero", [m.at for m in ordinary] + [at_rest] * 25),
    ):
        _, state = case.begin(case.problem)
        for at in evaluations:
            following, state = case.accelerator.step(at, state)
            if not bool(torch.isfinite(following).all()):
                raise Violation(f"the next point is not finite when {what}: a division by a norm or a singular system?")


@accelerator_law("differentiable")
def differentiable(case: AcceleratorCase) -> None:
    """Steps compose with torch.func.vjp; the gradients are finite, also at a solution and with an empty history."""
    x0 = case.map.sample(BATCH, rate=0.5, seed=5).b
    _, begin = case.begin(case.problem)

    def moving(x: Tensor) -> Tensor:
        state = begin
        for _ in range(4):
            x, state = case.accelerator.step(case.evaluation(x, case.problem), state)
        return x

    def resting(x: Tensor) -> Tensor:
        state = begin
        for _ in range(4):
            following, state = case.accelerator.step(Evaluation(x, x, x - x), state)
        return following

    for what, run in (("along the iteration", moving), ("where the residual is zero", resting)):
        pull = torch.func.vjp(run, x0)[1]
        if not bool(torch.isfinite(pull(torch.ones_like(x0))[0]).all()):
            raise Violation(f"the gradient through four steps is not finite {what}: sqrt(0), or where() around 0/0?")
    change = (moving(x0 + 1e-4) - moving(x0 - 1e-4)) / 2e-4
    if bool((change.abs() > 1e-3).any()) and not bool(torch.func.vjp(moving, x0)[1](change)[0].any()):
        raise Violation(
            "the gradient through four steps is zero although the steps depend on x: a detach() or no_grad()?"
        )
