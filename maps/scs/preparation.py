"""From a batch of cone programs to what a step of SCS needs: scaled data, metric, factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fixedpoint import Context
from maps.scs import linear_systems, scaling
from maps.scs.linear_systems import LinearSystem
from maps.scs.matrix import dense, expanded, sparse, symmetrized
from maps.scs.program import ConeProgram
from maps.scs.scaling import Data, Scaling
from maps.scs.state import Rows, Shared
from maps.scs.termination import certificate_weights

if TYPE_CHECKING:
    from maps.scs.map import SCS


def prepare(map: SCS, problem: ConeProgram) -> Context:
    """Scale the data and factor the linear system; once for the batch where the scaled A and P are shared."""
    batch = problem.batch or 1
    P = None if problem.P is None else symmetrized(problem.P)
    raw = Data(problem.A, P, problem.b.expand(batch, -1), problem.c.expand(batch, -1))
    diagonals, data = _scaled(map, raw, problem)
    shared = not map.adaptive_scale and data.A.ndim == 2 and (data.P is None or data.P.ndim == 2)
    kind = map.linear_solver
    if kind == "auto":
        kind = linear_systems.choose(problem.patterns["A"], problem.patterns.get("P"), 1 if shared else batch)
    data = _laid_out(data if shared else _expanded(data, batch), kind, problem)
    R = metric(map, torch.full_like(data.c[: 1 if shared else batch, 0], map.scale))
    R_y = R[0, map.n : -1] if shared else R[:, map.n : -1]
    system = linear_systems.factor(kind, data.A, data.P, R_y, map.rho_x)
    rows = Rows(
        data=data._replace(A=data.b.new_zeros(batch, 0, 0), P=None) if shared else data,
        scaling=diagonals,
        system=None if shared else system,
        **homogeneous(system, R[0] if shared else R, data.c, data.b),
        R=None if shared else R,
        bounds=map.cone.rescaled(diagonals.D),
        weights=certificate_weights(problem.A, problem.patterns["A"], raw.b, raw.c),
        history=None,
    )
    return Context(rows, Shared(kind, data.A, data.P, system, R[0]) if shared else Shared(kind), problem)


def metric(map: SCS, scale: Tensor) -> Tensor:
    """(B, l) R for scales (B,)."""
    batch = len(scale)
    rows = 1 / scale[:, None].expand(-1, map.m)
    zero = torch.arange(map.m, device=scale.device) < map.cone.equalities
    rows = torch.where(zero, rows / map.zero_cone_factor, rows)
    return torch.cat([scale.new_full((batch, map.n), map.rho_x), rows, scale.new_full((batch, 1), map.tau_factor)], 1)


def homogeneous(system: LinearSystem, R: Tensor, c: Tensor, b: Tensor) -> dict[str, Tensor]:
    """`Rows.g`, `weighted` and `curvature`."""
    g = torch.cat(system.solve(c, -b), 1)
    weighted = R[..., :-1] * g
    return {"g": g, "weighted": weighted, "curvature": R[..., -1:] + (weighted * g).sum(1, keepdim=True)}


def _scaled(map: SCS, raw: Data, problem: ConeProgram) -> tuple[Scaling, Data]:
    """(diagonals with a row per instance, scaled data)."""
    if map.normalize is False:
        return scaling.identity(raw), raw
    make = scaling.shared if map.normalize == "shared" else scaling.equilibrate
    diagonals = make(raw, map.cone, problem.patterns)
    data = scaling.apply(raw, diagonals)
    return Scaling(diagonals.D.expand_as(raw.b), diagonals.E.expand_as(raw.c), diagonals.sigma), data


def _expanded(data: Data, batch: int) -> Data:
    P = None if data.P is None else expanded(data.P, batch)
    return data._replace(A=expanded(data.A, batch), P=P)


def _laid_out(data: Data, kind: str, problem: ConeProgram) -> Data:
    """The matrices as the linear system wants them: dense, or sparse."""
    if kind == "dense":
        return data._replace(A=dense(data.A), P=None if data.P is None else dense(data.P))
    P = None if data.P is None else sparse(data.P, problem.patterns["P"])
    return data._replace(A=sparse(data.A, problem.patterns["A"]), P=P)
