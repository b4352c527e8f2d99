"""The laws of maps that need no calculus: shapes, purity, independence of rows, honest counts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fixedpoint.checks.compare import cast, changed, clone, distance, global_state
from fixedpoint.checks.maps.case import MapCase, map_law
from fixedpoint.checks.report import NotApplicable, Violation
from fixedpoint.checks.specimen import Plain
from fixedpoint.protocol import FixedPointMap
from fixedpoint.signature import Signature
from fixedpoint.solution import Evaluation, Status
from fixedpoint.solve.front import solve
from fixedpoint.tensors import pytrees


@map_law("signature")
def signature(case: MapCase) -> None:
    """Plain data that fits what the map returns."""
    given = case.map.signature
    shape = (case.batch, given.size)
    try:
        text = json.dumps(given.to_json())
    except TypeError as error:
        raise Violation(f"the signature is not JSON-able ({error}): keep to numbers, strings, lists, dicts") from error
    if Signature(**json.loads(text)).hash != given.hash or given.hash != case.map.signature.hash:
        raise Violation("the signature's hash changes on the way through JSON: tuples or non-string keys?")
    if "averaged" in given.traits and given.averagedness is None:
        raise Violation('the trait "averaged" is declared without `averagedness`')
    if tuple(case.map.initial(case.context).shape) != shape:
        raise Violation(f"initial: expected shape {shape}, got {tuple(case.map.initial(case.context).shape)}")
    features = case.map.featurize(case.context)
    if features.ndim != 2 or features.shape[0] != case.batch or given.features not in (0, features.shape[1]):
        raise Violation(f"featurize: expected ({case.batch}, {given.features or 'k'}), got {tuple(features.shape)}")
    metric = case.map.metric(case.context)
    if metric is not None and (tuple(metric.shape) != shape or not bool((metric > 0).all())):
        raise Violation(f"metric: expected positive numbers of shape {shape}")


@map_law("shape-and-dtype")
def shape_and_dtype(case: MapCase) -> None:
    """F keeps the shape and the dtype of x, for every batch size, in double and in single precision."""
    for dtype in (case.dtype, torch.float32 if case.dtype == torch.float64 else torch.float64):
        for size in (case.batch, 1):
            context = case.map.setup(cast(case.taken(torch.arange(size)), dtype))
            x = case.map.initial(context)
            _require_like("initial", x, (size, case.map.signature.size), dtype)
            x = x + case.direction(x).to(dtype)
            for name, method in (("retract", case.map.retract), ("forward", case.map.forward)):
                _require_like(name, method(x, context), tuple(x.shape), dtype)
            _require_like("evaluate", case.map.evaluate(x, context)[0], tuple(x.shape), dtype)


def _require_like(name: str, got: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(got.shape) != shape or got.dtype != dtype:
        raise Violation(
            f"{name}: expected {dtype} of shape {shape}, got {got.dtype} of shape {tuple(got.shape)} "
            "(a constant made without dtype=x.dtype? a bare squeeze? a float() or .double()?)"
        )
    if not bool(torch.isfinite(got).all()):
        raise Violation(f"{name}: not finite at an ordinary point in {dtype}")


@map_law("inputs-untouched")
def inputs_untouched(case: MapCase) -> None:
    """No method writes into what it was given."""
    given = {"x": case.x, "problem": case.problem, "context": case.context}
    before = clone(pytrees.tensors(given))
    case.map.setup(case.problem)
    case.everything(case.x, case.context)
    if names := changed(before, pytrees.tensors(given)):
        raise Violation(
            f"{', '.join(names)} changed: the map writes in place (+=, relu_(), x[i] = ...) into its inputs"
        )


@map_law("repeatable")
def repeatable(case: MapCase) -> None:
    """The same inputs give bit for bit the same results, whatever was computed in between."""
    first = clone(case.everything(case.x, case.context))
    case.everything(case.point(), case.context)
    for what, context in (("", case.context), (" after another setup", case.map.setup(case.problem))):
        if names := changed(first, case.everything(case.x, context)):
            raise Violation(
                f"{', '.join(names)} differ(s) on repetition{what}: random numbers, or state kept in the map?"
            )


@map_law("global-state")
def untouched_globals(case: MapCase) -> None:
    """Random states, the default dtype and the like stay as they are."""
    with torch.enable_grad():
        before = global_state()
        case.everything(case.x, case.map.setup(case.problem))
        after = global_state()
    if names := [name for name in before if before[name] != after[name]]:
        raise Violation(f"{', '.join(names)} changed: use a generator of your own, restore what you set")


@map_law("evaluate")
def evaluate(case: MapCase) -> None:
    """`evaluate` computes f, its by-products make an output with a row per instance."""
    x = case.map.retract(case.x, case.context)
    fx, aux = case.map.evaluate(x, case.context)
    gap = distance(fx, case.map.forward(x, case.context))
    if bool((gap > case.exact).any()):
        raise Violation(f"evaluate()[0] differs from forward() by {float(gap.max()):.1e} (relative)")
    for name, t in pytrees.tensors(case.map.output(Evaluation(x, fx, fx - x), aux, case.context)).items():
        if t.shape[:1] != (case.batch,):
            raise Violation(f"output ({name}): expected a row for each of {case.batch} instances, got {tuple(t.shape)}")


@map_law("assess")
def assess(case: MapCase) -> None:
    """A residual and a status for each instance."""
    found = case.everything(case.x, case.context)
    residual, status = found["assess (residual)"], found["assess (status)"]
    if tuple(residual.shape) != (case.batch,) or residual.dtype != case.dtype or not bool((residual >= 0).all()):
        raise Violation(
            f"assess: expected ({case.batch},) nonnegative residuals of {case.dtype}, got {residual.dtype} of shape "
            f"{tuple(residual.shape)}, smallest {float(residual.min()):.1e}"
        )
    known = torch.tensor([s for s in Status], device=status.device)
    if tuple(status.shape) != (case.batch,) or status.dtype != torch.int64 or not bool(torch.isin(status, known).all()):
        raise Violation(f"assess: expected ({case.batch},) int64 statuses, got {status.dtype} {tuple(status.shape)}")


@map_law("retract")
def retract(case: MapCase) -> None:
    """A representative is its own representative, and f is finite there."""
    for x in (case.map.initial(case.context), case.x, 1e3 * case.x):
        once = case.map.retract(x, case.context)
        gap = distance(case.map.retract(once, case.context), once)
        if bool((gap > case.exact).any()):
            raise Violation(f"retract is not idempotent: applied twice it moves by {float(gap.max()):.1e} (relative)")
        if not bool(torch.isfinite(case.map.forward(once, case.context)).all()):
            raise Violation("f is not finite at a retracted point")


@map_law("scales")
def scales(case: MapCase) -> None:
    """Points of size 1e-6, 1e6 and 0 are as good as any."""
    for scale in (1e-6, 1e6, 0.0):
        x = scale * case.randn(case.batch, case.map.signature.size)
        fx = case.map.forward(x, case.context)
        if fx.shape != x.shape or fx.dtype != x.dtype or not bool(torch.isfinite(fx).all()):
            raise Violation(f"f of a point of size {scale:g} is not finite, or of another shape or dtype")


@map_law("reference")
def reference(case: MapCase) -> None:
    """The solution known from elsewhere is a fixed point."""
    if case.reference is None:
        raise NotApplicable("no reference solution was given")
    cold = case.everything(case.map.initial(case.context), case.context)
    there = case.everything(case.reference, case.context)
    gap = distance(there["evaluate"], there["retract"])
    if bool((gap > 25 * case.loose).any()):
        raise Violation(
            f"f moves the reference by {float(gap.max()):.1e} (relative): the map or the reference is wrong"
        )
    residual = there["assess (residual)"]
    if bool((residual > 25 * case.loose * cold["assess (residual)"].clamp(min=1)).any()):
        raise Violation(f"the residual at the reference is {float(residual.max()):.1e}, not about 0")


@map_law("evaluations")
def evaluations(case: MapCase) -> None:
    """The evaluations that a solve reports are those that were done."""
    counted, calls = _counted(case.map)
    solution = solve(counted, case.taken(torch.tensor([0])), Plain(), tolerance=0, max_evaluations=5)
    reported = int(solution.evaluations[0])
    if calls["evaluate"] != reported or calls["forward"] > reported:
        raise Violation(
            f"{reported} evaluations were reported, but evaluate ran {calls['evaluate']} times, "
            f"forward {calls['forward']}: what assess and output need belongs to evaluate's by-products"
        )


def _counted(map: FixedPointMap) -> tuple[FixedPointMap, dict[str, int]]:
    """A copy of the map that counts the calls of `evaluate` and `forward`, and the counts."""
    counted, calls = copy.copy(map), {"evaluate": 0, "forward": 0}

    def counting(name: str) -> Callable[..., Any]:
        method = getattr(type(map), name)

        def call(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return method(counted, *args, **options)

        return call

    for name in calls:
        object.__setattr__(counted, name, counting(name))
    return counted, calls
