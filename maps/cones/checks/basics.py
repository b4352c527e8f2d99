"""The laws of cones as functions of tensors: shapes, precision, purity."""

from __future__ import annotations

import torch
from torch import Tensor

from fixedpoint.checks.compare import distance, global_state, identical, size
from fixedpoint.checks.report import Violation
from maps.cones.checks.case import EXACT, ConeCase, cone_property, require

_SINGLE = 1e-4
"""What a projection in single precision keeps."""


@cone_property("shape-and-dtype")
def shape_and_dtype(case: ConeCase, x: Tensor) -> None:
    """Projections keep shape and dtype, in double and in single precision, and are finite."""
    for dtype in (torch.float64, torch.float32):
        for name, project in case.sides:
            p = project(x.to(dtype))
            if p.shape != x.shape or p.dtype != dtype:
                raise Violation(
                    f"{name}: expected {dtype} of shape {tuple(x.shape)}, got {p.dtype} of shape {tuple(p.shape)} "
                    "(a constant made without dtype=z.dtype? a bare squeeze?)"
                )
            if not bool(torch.isfinite(p).all()):
                raise Violation(f"{name}: not finite in {dtype} (a division by a norm that is 0? an overflow?)")


@cone_property("precision")
def precision(case: ConeCase, x: Tensor) -> None:
    """Double precision is double throughout, and single precision gives what double gives, as far as it goes."""
    factor = 1 + 2.0**-30  # which single precision cannot tell from 1
    for name, project in case.sides:
        gap = distance(project(factor * x), factor * project(x), size(x))
        require(
            gap,
            EXACT,
            f"{name}: a point 1e-9 longer does not have a projection 1e-9 longer; they differ by {{}} (relative): "
            "float32 on the way, an iteration that stops early, or no cone?",
        )
        single = x.to(torch.float32)
        gap = distance(project(single), project(single.to(torch.float64)), size(x))
        require(gap, _SINGLE, f"{name}: in single precision it is off by {{}} (relative): cancellation, overflow?")


@cone_property("inputs-untouched")
def inputs_untouched(case: ConeCase, x: Tensor) -> None:
    """Projections do not write into their argument."""
    for name, project in case.sides:
        given = x.clone()
        project(given)
        if not identical(given, x):
            raise Violation(f"{name} changes its argument: it writes in place (clamp_, relu_, z[...] = ...)")


@cone_property("any-layout")
def any_layout(case: ConeCase, x: Tensor) -> None:
    """A slice of columns and a transposed tensor, as products of cones pass them on, give what a copy gives."""
    wide = torch.cat([x.new_full((len(x), 1), torch.nan), x, x.new_full((len(x), 2), torch.nan)], dim=1)
    for name, project in case.sides:
        expected = project(x)
        for what, z in (("a slice of columns", wide[:, 1:-2]), ("a transposed tensor", x.mT.contiguous().mT)):
            try:
                gap = distance(project(z), expected, size(x))
            except RuntimeError as error:
                raise Violation(f"{name} of {what} raises: {error} (view() where reshape() is needed?)") from error
            require(gap, EXACT, f"{name} of {what} differs from that of its copy by {{}} (relative)")


@cone_property("repeatable", points=2)
def repeatable(case: ConeCase, x: Tensor, y: Tensor) -> None:
    """The same points give bit for bit the same projections, whatever was projected in between."""
    for name, project in case.sides:
        first = project(x.clone()).clone()
        project(y.clone())
        if not identical(project(x.clone()), first):
            raise Violation(f"{name} differs on repetition: random numbers, or state kept in the cone?")


@cone_property("global-state")
def untouched_globals(case: ConeCase, x: Tensor) -> None:
    """Random states, the default dtype and the like stay as they are."""
    with torch.enable_grad():
        before = global_state()
        for _, project in case.sides:
            project(x)
        after = global_state()
    if names := [name for name in before if before[name] != after[name]]:
        raise Violation(f"{', '.join(names)} changed: use a generator of your own, restore what you set")
