"""What `CvxpyFamily.solve` returns: a conic solution in the terms of the CVXPY problem."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fixedpoint import Status
from fixedpoint.tensors.masks import where_rows
from maps.scs.cvxpy.recovery import Dual, Recovery
from maps.scs.solve import ConicSolution


@dataclass(frozen=True)
class CvxpySolution:
    """Solutions of a CVXPY problem at a batch of parameter values. For a single instance every B below is absent."""

    variables: list[Tensor]
    """(B, *shape) each, in the order of `problem.variables()`; NaN where there is no solution."""
    duals: list[Dual]
    """In the order of `problem.constraints`, in CVXPY's shapes and signs: (B, *shape); a list of these for a constraint
    with several dual variables (SOC, ExpCone); None where CVXPY gives none. NaN where there is no solution."""
    status: Tensor
    """(B,) `fixedpoint.Status` integers."""
    evaluations: Tensor
    """(B,) int64, of the map."""
    value: Tensor
    """(B,) the objective as written, constants included. An infeasible minimization has inf, an unbounded one -inf,
    maximizations the opposite."""
    solution: ConicSolution
    """Of the cone programs, with certificates and residuals."""

    @property
    def statuses(self) -> list[Status]:
        """The statuses as a list of `Status` (one entry for a single instance)."""
        return self.solution.statuses

    @property
    def converged(self) -> Tensor:
        """(B,) bool."""
        return self.status == Status.CONVERGED


def recovered(recovery: Recovery, solution: ConicSolution, offset: Tensor, maximize: bool) -> CvxpySolution:
    """A conic solution in CVXPY's terms.

    Args:
        recovery: the way back.
        solution: of the cone programs, in tensors.
        offset: (B, 1), or (1,) where the batch shares it, of the objective.
        maximize: whether the objective was turned round.
    """
    single = solution.status.ndim == 0
    x, y, status = (part[None] if single else part for part in (solution.x, solution.y, solution.status))
    certificate = (status == Status.PRIMAL_INFEASIBLE) | (status == Status.DUAL_INFEASIBLE)
    x, y = (where_rows(certificate, torch.full_like(part, torch.nan), part) for part in (x, y))
    value = solution.objective + (offset[0] if single else offset[..., 0])

    def one(dual: Dual) -> Dual:
        return [part[0] for part in dual] if isinstance(dual, list) else None if dual is None else dual[0]

    variables, duals = recovery.variables_of(x), recovery.duals_of(y)
    return CvxpySolution(
        variables=[variable[0] for variable in variables] if single else variables,
        duals=[one(dual) for dual in duals] if single else duals,
        status=solution.status,
        evaluations=solution.evaluations,
        value=-value if maximize else value,
        solution=solution,
    )
