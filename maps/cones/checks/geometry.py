"""The laws of projections onto a closed convex cone and onto its dual, in the Euclidean norm.

Tolerances are relative to the points: a cone has no scale of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fixedpoint.checks.compare import distance, size
from fixedpoint.checks.report import NotApplicable
from maps.cones.checks.case import EXACT, ConeCase, Projection, cone_law, cone_property, norm, require

_FACTORS = (1e-6, 1e-3, 0.7, 3.0, 1e3, 1e6)


@cone_property("membership")
def membership(case: ConeCase, x: Tensor) -> None:
    """Projections lie in their cone, which the other one certifies: p is in K where -p has the projection 0 onto K*."""
    for (name, project), (other, certify) in zip(case.sides, reversed(case.sides), strict=True):
        outside = certify(-project(x))
        require(
            distance(outside, torch.zeros_like(x), size(x)),
            EXACT,
            f"{name} ends {{}} (relative) outside of its cone: {other} of its negative is not 0 "
            "(a wrong factor? a dual that belongs to another cone?)",
        )


@cone_property("idempotent")
def idempotent(case: ConeCase, x: Tensor) -> None:
    """A point of the cone is its own projection."""
    for name, project in case.sides:
        p = project(x)
        gap = distance(project(p), p, size(x))
        require(gap, EXACT, f"{name} applied twice moves by {{}} (relative): not a projection, or a wrong factor?")


@cone_property("homogeneous")
def homogeneous(case: ConeCase, x: Tensor) -> None:
    """The projection of a x is a times that of x, for a >= 0."""
    for name, project in case.sides:
        p = project(x)
        for factor in (*_FACTORS, 0.0):
            gap = distance(project(factor * x), factor * p, size(factor * x))
            require(
                gap,
                EXACT,
                f"{name} of {factor:g} x is not {factor:g} times that of x but off by {{}} (relative): "
                "a constant (a threshold, a bound) that does not scale with the point?",
            )


@cone_property("nonexpansive", points=2)
def nonexpansive(case: ConeCase, x: Tensor, y: Tensor) -> None:
    """Projections bring no two points farther apart, however close they are."""
    for name, project in case.sides:
        p = project(x)
        for step in (y, 1e-3 * y * (norm(x) / norm(y))[:, None]):
            longer = _length(project(x + step) - p) - _length(step)
            require(
                longer / (norm(x) + norm(x + step)),
                EXACT,
                f"{name} moves two points apart, by {{}} (relative): the set is not convex, or this is not its "
                "nearest point in the Euclidean norm (a missing sqrt(2)?)",
            )


@cone_property("nearest-point", points=2)
def nearest_point(case: ConeCase, x: Tensor, y: Tensor) -> None:
    """From the projection, x lies at an obtuse angle to every point of the cone: <x - P(x), P(y) - P(x)> <= 0."""
    for name, project in case.sides:
        p, other = project(x), project(y)
        inner = ((x - p) * (other - p)).sum(1) / (norm(x) * (norm(x) + norm(y)))
        require(
            inner,
            EXACT,
            f"{name} does not give the nearest point: another of the set lies {{}} (relative) nearer "
            "(a wrong factor, a missing sqrt(2), a wrong branch, a set that is not convex?)",
        )


@cone_property("moreau")
def moreau(case: ConeCase, x: Tensor) -> None:
    """Every point is the sum of its projections onto the cone and onto the polar cone -K*, which are orthogonal."""
    p, q = case.cone.project(x), case.cone.project_dual(-x)
    gap = distance(p - q, x, size(x))
    require(gap, EXACT, "project(x) - project_dual(-x) is not x but off by {} (relative): a wrong dual?")
    inner = (p * q).sum(1).abs() / norm(x) ** 2
    require(inner, EXACT, "project(x) and project_dual(-x) are not orthogonal but have the product {} (relative)")


@cone_property("dual", points=2)
def dual(case: ConeCase, x: Tensor, y: Tensor) -> None:
    """No point of the cone has a negative product with one of the dual cone."""
    inner = (case.cone.project(x) * case.cone.project_dual(y)).sum(1) / (norm(x) * norm(y))
    require(-inner, EXACT, "<project(x), project_dual(y)> is negative, by {} (relative): the dual is too large")


@cone_law("inequality")
def inequality(case: ConeCase) -> None:
    """The cone is the one that was meant: its points fulfil the inequality, and those that do stay where they are."""
    if case.inequality is None:
        raise NotApplicable("no inequality was given: nothing tells this cone from another")
    outside: Projection = case.inequality

    def law(x: Tensor) -> None:
        p = case.cone.project(x)
        require(outside(p) / norm(x), 1e3 * EXACT, "the inequality is exceeded by {} (relative) after project")
        inside = outside(x) <= 0
        moved = torch.where(inside, distance(p, x, size(x)), 0.0)
        require(moved, EXACT, "project moves a point that fulfils the inequality, by {} (relative)")

    case.explore("inequality", law)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1)
