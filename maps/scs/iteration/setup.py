"""From a batch of cone programs to what a step of SCS needs: scaled data, metric, factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fixedpoint import Context
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import in_place_version, is_constant
from maps.scs import linear_systems
from maps.scs.iteration import eliminated, equilibration
from maps.scs.iteration.equilibration import Data, Scaling
from maps.scs.iteration.residuals import CertificateScale, Unscaling, certificate_scale
from maps.scs.iteration.state import BatchData, InstanceData
from maps.scs.linear_systems import LinearSystem
from maps.scs.linear_systems.sparse import SparseDirect
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix, dense, expanded, sparse, symmetrized, to_dtype

if TYPE_CHECKING:
    from maps.scs.iteration.map import SCS


ROUNDED = 1e-9
"""Accuracy of a factor in double precision that is for an iteration in single precision."""


def prepare(map: SCS, problem: ConeProgram, earlier: Context | None = None) -> Context:
    """Scale the data and factor the linear system; once for the batch where the scaled A and P are shared.

    Args:
        map: whose settings count.
        problem: a batch.
        earlier: prepared by the same map; what it shares is taken over where A and P are the same tensors.
    """
    batch, dtype = problem.batch or 1, map.dtype or problem.b.dtype
    b, c = (part.expand(batch, -1).to(dtype) for part in (problem.b, problem.c))
    if earlier is not None and _fits(map, earlier, problem, dtype):
        raw, (D, E, _) = Data(earlier.shared.A, None, b, c), (part[:1] for part in earlier.rows.scaling)
        diagonals = equilibration.with_sigma(raw, D, E) if map.normalize == "shared" else equilibration.identity(raw)
        return _with_rows(map, problem, raw, _expanded_rows(diagonals, raw), earlier.shared)
    one = not map.adaptive_scale and map.normalize is not True and _are_shared(problem)
    precise = _precise(map, one, dtype)
    P = None if problem.P is None else to_dtype(symmetrized(problem.P), precise)
    raw = Data(to_dtype(problem.A, precise), P, b, c)
    diagonals, data = _scaled(map, raw, problem)
    kind, patterns = map.linear_solver, _patterns(problem)
    if kind == "auto":
        # where the state is that of the inequalities, a shared K is solved with for its response and for g alone
        rights = batch + map.signature.size if one and map.first and _stamp(problem) is not None else None
        kind = linear_systems.choose(patterns["A"], patterns.get("P"), 1 if one else batch, rights=rights)
    data = _laid_out(data if one else _expanded(data, batch), kind, patterns)
    R = metric_diagonal(map, torch.full((1 if one else batch,), map.scale, dtype=precise, device=b.device))
    R_y, rho_x = R[..., map.n : -1], eliminated.WEIGHT if map.first else map.rho_x
    weightless = map.cone.equalities if map.first else None
    rough = ROUNDED if precise != dtype else 0.0
    system = linear_systems.factor(
        kind, data.A, data.P, R_y[0] if one else R_y, rho_x, weightless=weightless, tolerance=rough
    )
    if not one:
        return Context(_rows(map, problem, data, diagonals, system, R), BatchData(kind), problem)
    response = eliminated.Response.of(system, data.A, R[0], map.first) if _responds(map, system, batch) else None
    A, P, R_one, response = pytrees.transform(lambda t: t.to(dtype), (data.A, data.P, R[0], response))
    shared = BatchData(kind, A, P, system, R_one, response, _stamp(problem))
    return _with_rows(map, problem, raw, diagonals, shared)


def _precise(map: SCS, shared: bool, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the factor: K is close to a singular matrix where the map eliminates, so that a shared one, which is
    factored once, is factored in double precision.
    """
    return torch.float64 if map.first and shared else dtype


def _are_shared(problem: ConeProgram) -> bool:
    """Whether the batch has one A and one P."""
    return problem.A.ndim == 2 and (problem.P is None or problem.P.ndim == 2)


def _responds(map: SCS, system: LinearSystem | None, batch: int) -> bool:
    """Whether a response is to be made: it takes as many solves as there are inequalities, more than one instance asks
    of a sparse factor in all its evaluations.
    """
    return map.first > 0 and (not isinstance(system, SparseDirect) or batch > 1)


def _fits(map: SCS, earlier: Context, problem: ConeProgram, dtype: torch.dtype) -> bool:
    """Whether what an earlier batch shared is this one's too, and is all that it takes."""
    stamp, shared = _stamp(problem), earlier.shared
    if shared.response is None and _responds(map, shared.system, problem.batch or 1):
        return False
    return earlier.rows.g.dtype == dtype and stamp is not None and stamp == shared.stamp


def _stamp(problem: ConeProgram) -> tuple[Any, ...] | None:
    """Tells whether A and P are the same tensors, unchanged; None where somebody differentiates or maps them.

    The context holds the problem, so that no other tensor can get the memory of these.
    """
    found: list[Any] = []
    for matrix in (problem.A, problem.P):
        values = matrix.values if isinstance(matrix, SparseMatrix) else matrix
        if values is None:
            found.append(None)
        elif not is_constant(values):
            return None
        else:
            # the sum tells of changes that torch does not count, through NumPy or `.data`
            place = id(matrix.pattern) if isinstance(matrix, SparseMatrix) else None
            found.append(
                (values.data_ptr(), in_place_version(values), values.shape, values.stride(), place, float(values.sum()))
            )
    return tuple(found)


def _with_rows(map: SCS, problem: ConeProgram, raw: Data, diagonals: Scaling, shared: BatchData) -> Context:
    """The context of a batch that shares its scaled matrices."""
    b, c = equilibration.apply_vectors(raw, diagonals)
    data = Data(b.new_zeros(len(b), 0, 0), None, b, c)  # of A and P placeholders without entries
    if shared.response is not None:
        shared = shared._replace(response=shared.response.reading(shared.P, c, b[:, : map.cone.equalities]))
    return Context(_rows(map, problem, data, diagonals, shared.system, shared.R), shared, problem)


def _rows(map: SCS, problem: ConeProgram, data: Data, diagonals: Scaling, system: Any, R: Any) -> InstanceData:
    own = R.ndim == 2
    return InstanceData(
        data=data,
        scaling=diagonals,
        units=Unscaling.of(data, diagonals, map.cone.equalities, scaled=map.normalize is not False),
        system=system if own else None,
        among=eliminated.among(system, map.first) if own and map.first else None,
        **homogeneous(system, R, data.c, data.b, map.first, _precise(map, not own, data.b.dtype)),
        R=R if own else None,
        bounds=map.cone.rescaled(diagonals.D),
        weights=CertificateScale(*(part.expand(len(data.b)).to(data.b.dtype) for part in _weights(problem))),
        history=None,
    )


def _weights(problem: ConeProgram) -> CertificateScale:
    b, c = (part if part.ndim == 2 else part[None] for part in (problem.b, problem.c))
    return certificate_scale(problem.A, problem.patterns["A"], b, c)


def metric_diagonal(map: SCS, scale: Tensor) -> Tensor:
    """(B, l) R for scales (B,)."""
    batch = len(scale)
    rows = 1 / scale[:, None].expand(-1, map.m)
    zero = torch.arange(map.m, device=scale.device) < map.cone.equalities
    if map.weights is not None:
        rows = rows * torch.cat([map.weights.new_ones(map.cone.equalities), map.weights]).to(rows)
    if map.first:
        rows, rho_x = torch.where(zero, eliminated.WEIGHT, rows), eliminated.WEIGHT
    else:
        rows, rho_x = torch.where(zero, rows / map.zero_cone_factor, rows), map.rho_x
    return torch.cat([scale.new_full((batch, map.n), rho_x), rows, scale.new_full((batch, 1), map.tau_factor)], 1)


def homogeneous(
    system: LinearSystem, R: Tensor, c: Tensor, b: Tensor, first: int, precise: torch.dtype
) -> dict[str, Tensor]:
    """`Rows.g`, `weighted` and `curvature`; `first` as for the map, `precise` the dtype of the system."""
    right = torch.cat([c, -b], 1)
    g = system.solve(right.to(precise)).to(right.dtype)
    weighted = R[..., first:-1] * g[:, first:]
    return {"g": g, "weighted": weighted, "curvature": R[..., -1:] + (weighted * g[:, first:]).sum(1, keepdim=True)}


def _scaled(map: SCS, raw: Data, problem: ConeProgram) -> tuple[Scaling, Data]:
    """(diagonals with a row per instance, scaled data)."""
    if map.normalize is False:
        return equilibration.identity(raw), raw
    make = equilibration.shared if map.normalize == "shared" else equilibration.equilibrate
    diagonals = make(raw, map.cone, problem.patterns)
    return _expanded_rows(diagonals, raw), equilibration.apply(raw, diagonals)


def _expanded_rows(diagonals: Scaling, raw: Data) -> Scaling:
    return Scaling(diagonals.D.expand_as(raw.b), diagonals.E.expand_as(raw.c), diagonals.sigma)


def _expanded(data: Data, batch: int) -> Data:
    P = None if data.P is None else expanded(data.P, batch)
    return data._replace(A=expanded(data.A, batch), P=P)


def _patterns(problem: ConeProgram) -> dict[str, Pattern]:
    """Of the stored entries; of all, where somebody may differentiate a dense matrix: by its zeros too."""
    dense = {name: t for name in problem.patterns if isinstance(t := getattr(problem, name), Tensor)}
    return problem.patterns | {n: Pattern.full(*t.shape[-2:]) for n, t in dense.items() if not is_constant(t)}


def _laid_out(data: Data, kind: str, patterns: dict[str, Pattern]) -> Data:
    """The matrices as the linear system wants them: dense, or sparse."""
    if kind == "dense":
        return data._replace(A=dense(data.A), P=None if data.P is None else dense(data.P))
    P = None if data.P is None else sparse(data.P, patterns["P"])
    return data._replace(A=sparse(data.A, patterns["A"]), P=P)
