"""From a batch of cone programs to what a step of SCS needs: scaled data, metric, factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fixedpoint import Context
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_constant
from maps.scs import linear_systems
from maps.scs.iteration import eliminated, equilibration
from maps.scs.iteration.equilibration import Data, Scaling
from maps.scs.iteration.residuals import CertificateScale, Unscaling, certificate_scale
from maps.scs.iteration.settings import Formulation
from maps.scs.iteration.state import BatchData, InstanceData
from maps.scs.linear_systems import KktMatrix, LinearSolver, LinearSystem
from maps.scs.linear_systems.base import Layout
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Pattern, SparseMatrix, dense, expanded, sparse, symmetrized, to_dtype

ROUNDED = 1e-9
"""Accuracy of a factor in double precision that is for an iteration in single precision."""


def prepare(form: Formulation, problem: ConeProgram) -> BatchData | None:
    """What a batch shares: its scaled A and P, their scaling and factor; None where that is nothing.

    Args:
        form: of the iteration.
        problem: a batch.
    """
    settings = form.settings
    if settings.adaptive_scale or settings.normalize is True or not _are_shared(problem):
        return None
    batch, dtype = problem.batch or 1, settings.dtype or problem.b.dtype
    precise = _precise(form, True, dtype)
    raw = _raw(problem, precise, dtype)
    diagonals, data = _scaled(form, raw, problem)
    patterns = _patterns(problem)
    # where the state is that of the inequalities, a shared K is solved with for its response and for g alone
    rights = batch + form.size if form.eliminates and _is_constant(problem) else None
    solver = linear_systems.choose(settings.linear_solver, patterns["A"], patterns.get("P"), 1, rights)
    data = _laid_out(data, solver.layout, patterns)
    R = metric_diagonal(form, raw.b.new_full((1,), settings.scale, dtype=precise))[0]
    rough = ROUNDED if precise != dtype else 0.0
    system = _factor(form, solver, data, R, tolerance=rough)
    response = _response(form, system, data.A, R) if _responds(form, system, batch) else None
    A, P, R_all, response = pytrees.transform(lambda t: t.to(dtype), (data.A, data.P, R, response))
    return BatchData(
        solver, A, P, system, R_all, signed(R_all, form.n), response, scaling=(diagonals.D[:1], diagonals.E[:1])
    )


def setup_rows(form: Formulation, problem: ConeProgram, shared: BatchData) -> Context:
    """The context of a batch that shares its scaled matrices."""
    b, c = _vectors(problem, form.settings.dtype or problem.b.dtype)
    raw = Data(shared.A, None, b, c)
    D, E = shared.scaling
    scaled = form.settings.normalize == "shared"
    diagonals = _expanded_rows(equilibration.with_sigma(raw, D, E) if scaled else equilibration.identity(raw), raw)
    b, c = equilibration.apply_vectors(raw, diagonals)
    data = Data(b.new_zeros(len(b), 0, 0), None, b, c)  # of A and P placeholders without entries
    if shared.response is None and _responds(form, shared.system, len(b)):
        assert shared.system is not None
        shared = shared._replace(response=_response(form, shared.system, shared.A, shared.R))
    if shared.response is not None:
        shared = shared._replace(response=shared.response.reading(shared.P, c, b[:, : form.cone.equalities]))
    return Context(_rows(form, problem, data, diagonals, shared.system, shared.R), shared, problem)


def setup_each(form: Formulation, problem: ConeProgram) -> Context:
    """The context of a batch in which every instance has a scaled A and P, and a factor, of its own."""
    batch, dtype = problem.batch or 1, form.settings.dtype or problem.b.dtype
    precise = _precise(form, False, dtype)
    diagonals, data = _scaled(form, _raw(problem, precise, dtype), problem)
    patterns = _patterns(problem)
    solver = linear_systems.choose(form.settings.linear_solver, patterns["A"], patterns.get("P"), batch)
    data = _laid_out(_expanded(data, batch), solver.layout, patterns)
    R = metric_diagonal(form, data.b.new_full((batch,), form.settings.scale, dtype=precise))
    system = _factor(form, solver, data, R)
    return Context(_rows(form, problem, data, diagonals, system, R), BatchData(solver), problem)


def _vectors(problem: ConeProgram, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """B and c with a row per instance."""
    b, c = (part.expand(problem.batch or 1, -1).to(dtype) for part in (problem.b, problem.c))
    return b, c


def _raw(problem: ConeProgram, precise: torch.dtype, dtype: torch.dtype) -> Data:
    """The data as it was given, the matrices in the precision of the factor."""
    P = None if problem.P is None else to_dtype(symmetrized(problem.P), precise)
    return Data(to_dtype(problem.A, precise), P, *_vectors(problem, dtype))


def _factor(form: Formulation, solver: LinearSolver, data: Data, R: Tensor, tolerance: float = 0.0) -> LinearSystem:
    """K of scaled data in a metric R (n + m + 1,) or (B, n + m + 1)."""
    rho_x, rows = (eliminated.WEIGHT, form.cone.equalities) if form.eliminates else (form.settings.rho_x, None)
    matrix = KktMatrix(data.A, data.P, R[..., form.n : -1], rho_x, unweighted_rows=rows, tolerance=tolerance)
    return linear_systems.factor(solver, matrix)


def _response(form: Formulation, system: LinearSystem, A: Any, R: Tensor | None) -> eliminated.ReducedOperator:
    """The response to v, in the precision of the factor."""
    assert R is not None
    return eliminated.ReducedOperator.of(system, A, R, form.absent)


def _precise(form: Formulation, shared: bool, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the factor: K is close to a singular matrix where the map eliminates, so that a shared one, which is
    factored once, is factored in double precision.
    """
    return torch.float64 if form.eliminates and shared else dtype


def _are_shared(problem: ConeProgram) -> bool:
    """Whether the batch has one A and one P."""
    return problem.A.ndim == 2 and (problem.P is None or problem.P.ndim == 2)


def _responds(form: Formulation, system: LinearSystem | None, batch: int) -> bool:
    """Whether a response is to be made: it takes as many solves as there are inequalities, more than one instance asks
    of a sparse factor in all its evaluations.
    """
    return form.eliminates and system is not None and not (system.solves_singly and batch == 1)


def _is_constant(problem: ConeProgram) -> bool:
    """Whether nobody differentiates or maps A and P."""
    matrices = [matrix for matrix in (problem.A, problem.P) if matrix is not None]
    return all(is_constant(m.values if isinstance(m, SparseMatrix) else m) for m in matrices)


def _rows(form: Formulation, problem: ConeProgram, data: Data, diagonals: Scaling, system: Any, R: Any) -> InstanceData:
    own = R.ndim == 2
    return InstanceData(
        data=data,
        scaling=diagonals,
        units=Unscaling.of(data, diagonals, form.cone.equalities, scaled=form.settings.normalize is not False),
        system=system if own else None,
        restricted=system.restricted(form.absent) if own and form.eliminates else None,
        **homogeneous(system, R, data.c, data.b, form.absent, _precise(form, not own, data.b.dtype)),
        R=R if own else None,
        signed=signed(R, form.n) if own else None,
        bounds=form.cone.rescaled(diagonals.D),
        weights=CertificateScale(*(part.expand(len(data.b)).to(data.b.dtype) for part in _weights(problem))),
        history=None,
    )


def _weights(problem: ConeProgram) -> CertificateScale:
    b, c = (part if part.ndim == 2 else part[None] for part in (problem.b, problem.c))
    return certificate_scale(problem.A, problem.patterns["A"], b, c)


def metric_diagonal(form: Formulation, scale: Tensor) -> Tensor:
    """(B, l) R for scales (B,)."""
    batch = len(scale)
    rows = 1 / scale[:, None].expand(-1, form.m)
    zero = torch.arange(form.m, device=scale.device) < form.cone.equalities
    if form.row_weights is not None:
        rows = rows * torch.cat([form.row_weights.new_ones(form.cone.equalities), form.row_weights]).to(rows)
    if form.eliminates:
        rows, rho_x = torch.where(zero, eliminated.WEIGHT, rows), eliminated.WEIGHT
    else:
        rows, rho_x = torch.where(zero, rows / form.settings.zero_cone_factor, rows), form.settings.rho_x
    return torch.cat(
        [scale.new_full((batch, form.n), rho_x), rows, scale.new_full((batch, 1), form.settings.tau_factor)], 1
    )


def signed(R: Tensor, n: int) -> Tensor:
    """(n + m,) or (B, n + m) (R_x, -R_y)."""
    return torch.cat([R[..., :n], -R[..., n:-1]], -1)


def homogeneous(
    system: LinearSystem, R: Tensor, c: Tensor, b: Tensor, first: int, precise: torch.dtype
) -> dict[str, Tensor]:
    """`Rows.g`, `weighted` and `curvature`; `first` as for the form, `precise` the dtype of the system."""
    right = torch.cat([c, -b], 1)
    g = system.solve(right.to(precise)).to(right.dtype)
    weighted = R[..., first:-1] * g[:, first:]
    return {"g": g, "weighted": weighted, "curvature": R[..., -1:] + (weighted * g[:, first:]).sum(1, keepdim=True)}


def _scaled(form: Formulation, raw: Data, problem: ConeProgram) -> tuple[Scaling, Data]:
    """(diagonals with a row per instance, scaled data)."""
    if form.settings.normalize is False:
        return equilibration.identity(raw), raw
    make = equilibration.shared if form.settings.normalize == "shared" else equilibration.equilibrate
    diagonals = make(raw, form.cone, problem.patterns)
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


def _laid_out(data: Data, layout: Layout, patterns: dict[str, Pattern]) -> Data:
    """The matrices as the linear system wants them: dense, or sparse."""
    if layout == "dense":
        return data._replace(A=dense(data.A), P=None if data.P is None else dense(data.P))
    P = None if data.P is None else sparse(data.P, patterns["P"])
    return data._replace(A=sparse(data.A, patterns["A"]), P=P)
