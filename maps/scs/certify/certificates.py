"""Certificates that a program has no solution, computed and tested in the original data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maps.scs.certify.kkt import kkt_terms
from maps.scs.iteration.residuals import CertificateScale, certificate_scale
from maps.scs.iteration.state import ConicPoint
from maps.scs.problem.program import ConeProgram

CONE_DISTANCE = 1e-6
"""How far from its cone a certificate may be, relative to 1 + its norm."""


class Proof(NamedTuple):
    """A certificate for every row of a batch, whether or not it holds there."""

    point: ConicPoint
    """Normalised; NaN in the parts that do not belong to it."""
    violation: dict[str, Tensor]
    """"primal", "dual", "gap" -> (B,); NaN where there is no such condition."""
    objective: float
    holds: Tensor
    """(B,)"""


def unbounded(program: ConeProgram, point: ConicPoint, tolerance: float) -> Proof:
    """A ray: c'x = -1, Px = 0, Ax + s = 0, s in K: from any feasible point the objective falls for ever along x."""
    fall = -(program.c * point.x).sum(1, keepdim=True)
    x, s = point.x / fall, point.s / fall
    terms = kkt_terms(program, x, torch.zeros_like(s), s, homogeneous=True)
    primal, dual, cone = (terms[name] for name in ("primal", "dual", "cone"))
    heavier = _weights(program, point).unbounded
    small = (heavier * primal[0] <= tolerance) & (dual[0] <= tolerance) & (cone[0] <= CONE_DISTANCE * (1 + cone[1]))
    nan = torch.full_like(fall[:, 0], torch.nan)
    violation = {"primal": primal[0], "dual": dual[0], "gap": nan}
    return Proof(ConicPoint(x, torch.full_like(s, torch.nan), s), violation, -torch.inf, (fall[:, 0] > 0) & small)


def infeasible(program: ConeProgram, point: ConicPoint, tolerance: float) -> Proof:
    """A separating plane: b'y = -1, A'y = 0, y in K*; for a feasible x, 0 = y'Ax = y'b - y's <= -1."""
    separation = -(program.b * point.y).sum(1, keepdim=True)
    y = point.y / separation
    terms = kkt_terms(program, torch.zeros_like(point.x), y, torch.zeros_like(y), homogeneous=True)
    dual, cone = terms["dual"], terms["dual cone"]
    small = (_weights(program, point).infeasible * dual[0] <= tolerance) & (cone[0] <= CONE_DISTANCE * (1 + cone[1]))
    nan = torch.full_like(separation[:, 0], torch.nan)
    elsewhere = torch.full_like(point.x, torch.nan), torch.full_like(y, torch.nan)
    violation = {"primal": nan, "dual": dual[0], "gap": nan}
    return Proof(ConicPoint(elsewhere[0], y, elsewhere[1]), violation, torch.inf, (separation[:, 0] > 0) & small)


def _weights(program: ConeProgram, point: ConicPoint) -> CertificateScale:
    b, c = program.b.expand_as(point.y), program.c.expand_as(point.x)
    return certificate_scale(program.A, program.patterns["A"], b, c)
