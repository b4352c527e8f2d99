"""What a conic solve returns, judged once more from the original data."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fixedpoint import Status
from fixedpoint.gradients.warnings import warn_instances
from fixedpoint.solve.loop import LoopResult
from fixedpoint.tensors.masks import is_readable, where_rows
from maps.scs.certify.certificates import infeasible, unbounded
from maps.scs.certify.kkt import kkt_terms
from maps.scs.iteration.state import ConicPoint
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import times

Array = Any
"""A torch tensor, or a NumPy array where the program was given as such."""

SLACK = 1.01
"""How far above its tolerance a claim may be when it is computed again from the original data (rounding)."""


@dataclass(frozen=True)
class ConicSolution:
    """The result of `maps.scs.solve`. For a single program every B below is absent.

    `len(solution)` and `solution[i]` give the instances of a batch.
    """

    x: Array
    """(B, n); where DUAL_INFEASIBLE a direction with c'x = -1 along which the objective falls for ever; NaN where
    PRIMAL_INFEASIBLE."""
    y: Array
    """(B, m) dual variable, in K*; where PRIMAL_INFEASIBLE a certificate, A'y = 0 and b'y = -1; NaN where
    DUAL_INFEASIBLE."""
    s: Array
    """(B, m) slack, in K; where DUAL_INFEASIBLE that of the direction, Ax + s = 0; NaN where PRIMAL_INFEASIBLE."""
    status: Array
    """(B,) `fixedpoint.Status` integers."""
    evaluations: Array
    """(B,) int64; k evaluations are k + 1 iterations of the scs package, which reports them as k."""
    primal_residual: Array
    """(B,) ||Ax + s - b||_inf, absolute, in the original data; of a certificate ||Ax + s||_inf."""
    dual_residual: Array
    """(B,) ||Px + A'y + c||_inf; of a certificate ||A'y||_inf or ||Px||_inf."""
    gap: Array
    """(B,) |x'Px + c'x + b'y|; NaN for a certificate."""
    objective: Array
    """(B,) 1/2 x'Px + c'x; -inf where DUAL_INFEASIBLE, inf where PRIMAL_INFEASIBLE."""
    warm_started: Array
    """(B,) bool, whether the instance began at `warm_start`."""
    seconds: float
    """The whole solve took, setup included."""

    @property
    def statuses(self) -> list[Status]:
        """The statuses as a list of `Status` (one entry for a single program)."""
        return [Status(int(value)) for value in self.status.reshape(-1)]

    @property
    def converged(self) -> Array:
        """(B,) bool."""
        return self.status == Status.CONVERGED

    def __len__(self) -> int:
        if self.status.ndim == 0:
            raise TypeError("a single program's solution has no length")
        return len(self.status)

    def __getitem__(self, index: int) -> ConicSolution:
        """The solution of one instance of a batch."""
        len(self)
        picked = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "seconds"}
        return replace(self, **picked)


def judged(
    program: ConeProgram,
    solution: LoopResult,
    warm: Tensor,
    *,
    eps_abs: float,
    eps_rel: float,
    eps_infeas: float,
    slack: float = SLACK,
) -> dict[str, Tensor]:
    """The fields of a `ConicSolution` but the seconds, batch-first, and the map's "residual": every claim is computed
    again from the original data, so that one that fails is STALLED, not repeated.
    """
    point, status = ConicPoint(*solution.output), solution.status
    invalid = status == Status.INVALID
    x = where_rows(invalid, torch.zeros_like(point.x), point.x)  # 0 times NaN would spoil gradients of what is shared
    Px = torch.zeros_like(x) if program.P is None else times(program.P, x)
    objective = where_rows(invalid, torch.full_like(x[:, 0], torch.nan), ((0.5 * Px + program.c) * x).sum(-1))
    with torch.no_grad():
        terms = kkt_terms(program, *point, cones=False)  # s and y are projections
        violation = {name: terms[name][0] for name in ("primal", "dual", "gap")}
        limits = {name: slack * (eps_abs + eps_rel * terms[name][1]) for name in violation}
        kept = torch.stack([violation[name] <= limit for name, limit in limits.items()]).all(0)
        exact = kept | (max(eps_abs, eps_rel) == 0)
        status = torch.where((status == Status.CONVERGED) & ~exact, Status.STALLED, status)
    for verdict, prove in ((Status.PRIMAL_INFEASIBLE, infeasible), (Status.DUAL_INFEASIBLE, unbounded)):
        rows = status == verdict
        if not is_readable(rows) or not bool(rows.any()):
            continue
        with torch.no_grad():
            proof = prove(program, point, slack * eps_infeas)
        status = torch.where(rows & ~proof.holds, Status.STALLED, status)
        rows = rows & proof.holds
        if point.x.requires_grad:
            warn_instances(rows, f"it is {verdict.name}, and a certificate is not differentiated")
        point = ConicPoint(*(where_rows(rows, new, old) for new, old in zip(proof.point, point, strict=True)))
        violation = {name: torch.where(rows, proof.violation[name], old) for name, old in violation.items()}
        objective = torch.where(rows, proof.objective, objective)
    return {
        **point._asdict(),
        "status": status,
        "evaluations": solution.evaluations,
        "primal_residual": violation["primal"],
        "dual_residual": violation["dual"],
        "gap": violation["gap"],
        "objective": objective,
        "warm_started": warm & (status != Status.INVALID),
        "residual": solution.residual,
    }
