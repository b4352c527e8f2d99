"""The laws of accelerators on whole solves: honest counts, convergence, and what they declare of themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from fixedpoint.checks.accelerators.case import BATCH, AcceleratorCase, accelerator_law
from fixedpoint.checks.compare import distance
from fixedpoint.checks.report import NotApplicable, Violation
from fixedpoint.checks.specimen import Adversary, Specimen, reflection
from fixedpoint.protocol import PROMISES, FixedPointMap
from fixedpoint.signature import Signature
from fixedpoint.solution import Solution
from fixedpoint.solve.front import solve
from fixedpoint.solve.loop import unroll
from fixedpoint.tensors import pytrees


@accelerator_law("evaluations")
def evaluations(case: AcceleratorCase) -> None:
    """A solve evaluates the map once per step and reports just that; the accelerator evaluates no map itself."""
    with _map_calls() as calls:
        case.rollout(3)
    if hidden := [name for name, caller in calls if caller != AcceleratorCase.evaluation.__code__]:
        raise Violation(f"it calls {hidden[0]}(): evaluations that nobody counts. An accelerator sees evaluations only")
    case.map.calls = 0
    one = pytrees.transform(lambda t: t[:1], case.problem)
    solution = solve(case.map, one, case.accelerator, tolerance=0, max_evaluations=6)
    if case.map.calls != int(solution.evaluations[0]):
        raise Violation(f"{int(solution.evaluations[0])} evaluations were reported, {case.map.calls} were done")


@contextmanager
def _map_calls() -> Iterator[list[tuple[str, Any]]]:
    """Every call of a map's `forward` or `evaluate` in this block: (name, code of the caller)."""
    calls: list[tuple[str, Any]] = []
    previous = sys.getprofile()

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name in ("forward", "evaluate"):
            owner = frame.f_locals.get("self")
            if isinstance(owner, FixedPointMap):
                calls.append((f"{type(owner).__name__}.{frame.f_code.co_name}", frame.f_back.f_code))

    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(previous)


@accelerator_law("converges")
def converges(case: AcceleratorCase) -> None:
    """It solves an easy (symmetric, positive) contraction in at most five times the plain iteration's evaluations."""
    _require_solved(solve(case.map, case.easy, case.accelerator, tolerance=1e-8, max_evaluations=1000), "")


def _require_solved(solution: Solution, where: str) -> None:
    if not bool(solution.converged.all()):
        row = int((~solution.converged).to(torch.int8).argmax())
        raise Violation(
            f"instance {row} of an affine contraction ends {solution.statuses[row].name} with residual "
            f"{float(solution.residual[row]):.1e} after {int(solution.evaluations[row])} evaluations{where}"
        )


@accelerator_law("declared-laws")
def declared(case: AcceleratorCase) -> None:
    """What it declares of itself is among the laws that are tested."""
    if unknown := set(case.accelerator.promises) - PROMISES:
        raise Violation(f"promises: unknown {sorted(unknown)}; known are {sorted(PROMISES)}")


def _require_declared(case: AcceleratorCase, law: str) -> None:
    if law not in case.accelerator.promises:
        raise NotApplicable("not declared in `promises`")


@accelerator_law("scale-invariant")
def scale_invariant(case: AcceleratorCase) -> None:
    """Evaluations s times as large give answers s times as large, for s from 1e-12 to 1e12."""
    _require_declared(case, "scale-invariant")
    moments = case.rollout(12)
    for factor in (2.0**-40, 2.0**-20, 2.0**20, 2.0**40):  # powers of two: exact
        for moment, x in zip(moments, case.replay(moments, partial(torch.mul, factor)), strict=True):
            gap = distance(x / factor, moment.x)
            if bool((gap > 1e-6).any()):
                raise Violation(
                    f"its answer to evaluations scaled by {factor:.0e} differs by {float(gap.max()):.1e} (relative): "
                    "an absolute constant (a ridge, an epsilon) where a relative one is needed?"
                )


@accelerator_law("rotation-invariant")
def rotation_invariant(case: AcceleratorCase) -> None:
    """Rotated evaluations give rotated answers (in the Euclidean metric)."""
    _require_declared(case, "rotation-invariant")
    moments, rotate = case.rollout(12), reflection(BATCH, case.signature.size)
    for moment, x in zip(moments, case.replay(moments, rotate), strict=True):
        gap = distance(rotate(x), moment.x)
        if bool((gap > 1e-6).any()):
            raise Violation(
                f"its answer to rotated evaluations is off by {float(gap.max()):.1e}: it works by coordinates"
            )


@accelerator_law("finite-termination")
def finite_termination(case: AcceleratorCase) -> None:
    """On a nonsingular affine map of dimension d <= memory, the evaluation d + 2 finds a residual of about zero."""
    _require_declared(case, "finite-termination")
    memory = getattr(case.accelerator, "memory", None)
    if not isinstance(memory, int):
        raise Violation('"finite-termination" is declared without an attribute `memory`')
    size = min(memory, 5)
    specimen = Specimen(Signature(size))
    for rate in (0.9, 1.7):
        residual = unroll(specimen, specimen.sample(BATCH, rate=rate, seed=2), case.accelerator, size + 2).residual
        left = residual[-1] / residual[0]
        if bool((left > 1e-6).any()):
            raise Violation(
                f"on affine maps of dimension {size} with singular values up to {rate} a relative residual of "
                f"{float(left.max()):.1e} is left at evaluation {size + 2}"
            )


@accelerator_law("safeguarded")
def safeguarded(case: AcceleratorCase) -> None:
    """Around every adversary it still converges where the plain map does."""
    _require_declared(case, "safeguarded")
    for kind in Adversary.KINDS:
        guarded = type(case.accelerator)(inner=Adversary(kind))  # type: ignore[call-arg]
        solution = solve(case.map, case.problem, guarded, tolerance=1e-8, max_evaluations=2000)
        _require_solved(solution, f" around an adversary ({kind})")
