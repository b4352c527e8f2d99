"""SCS's iteration as a fixed-point map.

The state is SCS 3's v = (v_x, v_y, v_tau) of length n + m + 1. One evaluation is one step of Douglas-Rachford splitting
on the homogeneous embedding of the program (O'Donoghue, "Operator splitting for a homogeneous embedding of the linear
complementarity problem", 2021), with the metric R = diag(rho_x I, R_y, tau_factor):

    u~ = (R + M)^{-1} R v     u = projection of 2 u~ - v     f(v) = v + alpha (u - u~)

f is homogeneous of degree 1, so `retract` normalises v to length sqrt(n + m + 1), as SCS does. SCS's own iteration 0
sets tau = 1 and is not this map: `initial` and `resume` return the state after it, so that our k evaluations are the
wheel's k + 1 iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fixedpoint import Adaptation, Assessment, Check, Choice, Context, Evaluation, FixedPointMap, Range, Signature
from fixedpoint.gradients.warnings import warn_instances, warn_untrusted
from fixedpoint.search_space import SearchSpace
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import any_row, where_rows
from maps.cones import ConeSpec, ProductCone
from maps.scs import linear_systems
from maps.scs.adjoint import vjp as adjoint
from maps.scs.iteration import adaptive_scale, eliminated, residuals
from maps.scs.iteration.settings import Formulation, SCSSettings
from maps.scs.iteration.setup import homogeneous, metric_diagonal, prepare, setup_each, setup_rows, signed
from maps.scs.iteration.state import TAU_FLOOR, BatchData, ConicPoint, InnerPoint
from maps.scs.iteration.step import Step
from maps.scs.linear_systems import KktMatrix
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import entries
from maps.scs.problem.validation import faults


class SCS(FixedPointMap[ConeProgram, Context]):
    """The map of SCS 3.3.1 for programs with n variables over the given cones.

    The residual it reports is the largest of the three relative KKT residuals (primal, dual, gap) in the original data:
    each divided by absolute + relative * (the size of its terms), with (absolute, relative) = `error_weights`. It is
    infinite while tau vanishes, so that such an instance never converges; it may show that it is infeasible or
    unbounded instead.

    Args:
        n: number of variables.
        cones: rows of K, as in `ConeProgram`, or a cone made of them.
        features: width of `featurize` where it is known beforehand, see `feature_count`; 0 where it is not.
        **settings: fields of `SCSSettings`.

    Raises:
        ValueError: an argument outside its range, unknown cones; TypeError: an unknown setting.
    """

    ranks: ClassVar = {"A": 2, "A.values": 1, "b": 1, "c": 1, "P": 2, "P.values": 1}
    tunable: ClassVar[Mapping[str, SearchSpace]] = {
        "normalize": Choice((True, False)),
        "scale": Range(1e-2, 1e3, log=True),
        "zero_cone_factor": Range(1e-1, 1e4, log=True),
        "alpha": Range(1.0, 1.9),
        "rho_x": Range(1e-6, 1e-1, log=True),
        "tau_factor": Range(1e0, 1e4, log=True),
    }

    def __init__(self, n: int, cones: ConeSpec | ProductCone, *, features: int = 0, **settings: Any) -> None:
        self.settings = SCSSettings(**settings)
        self.built_with = self.settings.of_iteration
        self.cone = cones if isinstance(cones, ProductCone) else ProductCone(cones)
        self.formulation = Formulation(n, self.cone, self.settings)
        form = self.formulation
        self.n, self.m, self.eliminates, self.absent = form.n, form.m, form.eliminates, form.absent
        self.step = Step(self.n + self.cone.equalities - self.absent, self.cone, self.settings.alpha)
        self.signature = Signature(
            size=self.formulation.size,
            features=features,
            traits=frozenset({"nonexpansive", "averaged", "homogeneous"}),
            averagedness=self.settings.alpha / 2,
            coordinates=self.formulation.coordinates,
            sizes=frozenset({"n", "cones"}),
        )

    @classmethod
    def of(cls, program: ConeProgram, **options: Any) -> SCS:
        """The map for programs like this one: its size, its cones, and shared what it shares."""
        return cls(program.n, program.cone, features=feature_count(program), **options)

    def faults(self, problem: ConeProgram) -> dict[str, Tensor]:
        """A P that is not symmetric, or not positive semidefinite."""
        return faults(problem)

    def setup(self, problem: ConeProgram) -> Context:
        """Scale the data and factor the linear system; once for the batch where the scaled A and P are shared.

        Raises:
            ValueError: a program of another size or other cones.
            FactorizationError: see `linear_systems.factor`.
        """
        return self.setup_shared(problem, self.prepare(problem))

    def prepare(self, problem: ConeProgram) -> BatchData | None:
        """The scaling and the factor of a batch that shares A and P; None where it does not, or each instance is scaled
        by itself.

        Raises:
            ValueError, FactorizationError: as for `setup`.
        """
        if (problem.n, problem.cones) != (self.n, self.cone.spec):
            raise ValueError(
                f"program: this map is for n = {self.n} and cones {self.cone.spec}, got n = {problem.n} and cones "
                f"{problem.cones}"
            )
        return prepare(self.formulation, problem)

    def setup_shared(self, problem: ConeProgram, shared: BatchData | None) -> Context:
        """`setup`, with the scaling and the factor that `prepare` made of the same A and P."""
        context = (
            setup_each(self.formulation, problem) if shared is None else setup_rows(self.formulation, problem, shared)
        )
        if self.settings.adaptive_scale:
            rows = context.rows
            _, inner = self._from_origin(context)
            history = adaptive_scale.begin(self.settings.scale, self._norms(inner, context))
            context = context._replace(rows=rows._replace(history=history))
        return context

    def featurize(self, context: Context) -> Tensor:
        """(B, k) the scaled data, flattened: b, c and, where they vary, the stored entries of A and P."""
        data, problem = context.rows.data, context.problem
        parts = [data.b, data.c]
        for name, part in (("A", data.A), ("P", data.P)):
            if part is not None and getattr(problem, name).ndim == 3:
                parts.append(entries(part, problem.patterns[name]))
        return torch.cat(parts, dim=1)

    def initial(self, context: Context) -> Tensor:
        """The state after SCS's iteration 0 from (0, 0, 1): no linear solve is needed for it."""
        return self._from_origin(context)[0]

    def resume(self, output: ConicPoint, context: Context) -> Tensor:
        """The state after SCS's iteration 0 from a point; the cold one for instances whose point is not finite.

        Raises:
            TypeError: another dtype than the program's, or no x, y and s; ValueError: parts of other widths.
        """
        found, dtype = [tuple(part.shape[1:]) for part in output], context.rows.g.dtype
        if len(found) != 3 or any(part.dtype != context.problem.b.dtype for part in output):
            expected = context.problem.b.dtype
            raise TypeError(f"start: expected x, y and s of dtype {expected}, got {type(output).__name__}")
        if found != [(self.n,), (self.m,), (self.m,)]:
            raise ValueError(f"start: expected x, y, s of widths {self.n}, {self.m}, {self.m}, got {found}")
        v = self._state(ConicPoint(*(part.to(dtype) for part in output)), context)
        known = torch.isfinite(v).all(1)
        v = where_rows(known, v, self.cold_state(context))
        return self._first(v, self._solve(v, context), context)[0]

    def retract(self, x: Tensor, context: Context) -> Tensor:
        """V scaled to length sqrt(its size), as SCS does; 0 stays 0."""
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x * (self.signature.size**0.5 / torch.where(length > 0, length, 1.0))

    def dehomogenized(self, x: Tensor, context: Context) -> Tensor:
        """(B, l - 1) v / v_tau without its last entry; inf where v_tau vanishes or is negative (kappa > 0)."""
        tau = x[:, -1:]
        there = tau > TAU_FLOOR * torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return torch.where(there, x[:, :-1] / torch.where(there, tau, torch.ones_like(tau)), torch.inf)

    def metric(self, context: Context) -> Tensor:
        """R."""
        return self._metric(context)[..., self.absent :].expand(context.rows.g.shape[0], -1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """One step of SCS."""
        return self.evaluate(x, context)[0]

    def evaluate(self, x: Tensor, context: Context) -> tuple[Tensor, InnerPoint]:
        """One step of SCS and the inner point it went through."""
        rows, R = context.rows, self._metric(context)[..., self.absent :]
        p = self._solve(x, context)
        return self.step(x, p, rows.g[:, self.absent :], rows.weighted, rows.curvature, R, rows.bounds)

    def assess(self, evaluation: Evaluation, aux: InnerPoint, context: Context) -> Assessment:
        """The largest relative KKT residual, infinite while tau vanishes; and what a certificate shows."""
        rows = context.rows
        point = self._norms(aux, context)
        worst = residuals.kkt_residual(point._replace(tau=point.tau.clamp(min=1e-18)), self.settings.error_weights)
        worst = torch.where(aux.vanished()[0][:, 0], torch.inf, worst)
        if self.settings.eps_infeas == 0:
            return residuals.KktAssessment.of(worst, torch.zeros_like(worst, dtype=torch.int64), point)
        found = residuals.certificate(point, rows.scaling.sigma, rows.weights, self.settings.eps_infeas)
        return residuals.KktAssessment.of(worst, found, point)

    def adapt(self, at: Evaluation, aux: InnerPoint, context: Context, check: Check) -> Adaptation | None:
        """SCS's scalar rule for the scale; s and kappa, x and y stay what they are, v follows the new metric."""
        rows = context.rows
        if rows.history is None:
            return None
        assert isinstance(check.assessment, residuals.KktAssessment)
        history, changed = adaptive_scale.update(rows.history, check.assessment.norms, check.evaluations)
        rows = rows._replace(history=history)
        x, fx = at.x, at.fx
        if not any_row(changed):
            return Adaptation(context._replace(rows=rows), x, fx, None)
        R = metric_diagonal(self.formulation, history.scale)
        solver, data, R_y = context.shared.solver, rows.data, R[:, self.n : -1]
        try:
            system = linear_systems.factor(solver, KktMatrix(data.A, data.P, R_y, self.settings.rho_x))
        except linear_systems.FactorizationError:  # the batch goes on with the scales that it has, and waits anew
            rows = rows._replace(history=history._replace(scale=context.rows.history.scale))
            return Adaptation(context._replace(rows=rows), x, fx, None)
        x = x + where_rows(changed, aux.slack(self._metric(context)) * (1 / R - 1 / rows.R), torch.zeros_like(x))
        fx = x + at.residual
        rows = rows._replace(
            R=R,
            signed=signed(R, self.n),
            system=system,
            **homogeneous(system, R, data.c, data.b, self.absent, data.b.dtype),
        )
        return Adaptation(context._replace(rows=rows), x, fx, changed)

    def original(self, at: Evaluation, aux: InnerPoint, context: Context) -> Tensor:
        """V under the scale that a solve begins with."""
        R = context.rows.R
        if context.rows.history is None or R is None:
            return at.x
        return at.x + aux.slack(self._metric(context)) * (
            1 / metric_diagonal(self.formulation, torch.full_like(R[:, 0], self.settings.scale)) - 1 / R
        )

    def output(self, evaluation: Evaluation, aux: InnerPoint, context: Context) -> ConicPoint:
        """x, y, s in the original units; where tau vanishes, and there is no point, the direction, of size 1."""
        D, E, sigma = context.rows.scaling
        gone, length = aux.vanished()
        scale = torch.where(gone, length.clamp(min=1e-18), aux.tau) * sigma
        whole = self._whole(aux, context)
        x, y, _ = whole.u.split([self.n, self.m, 1], 1)
        return ConicPoint(
            E * x / scale, D * y / scale, whole.slack(self._metric(context))[:, self.n : -1] / (D * scale)
        )

    def implicit_vjp(
        self, x_star: Tensor, context: Context, cotangent: Tensor, of_output: tuple[Tensor, ...] = ()
    ) -> ConeProgram:
        """See `FixedPointMap.implicit_vjp`: by the optimality conditions of the program (`adjoint`).

        Warns:
            AdjointWarning: degenerate instances, whose gradient is not unique or does not exist.
        """
        evaluation = Evaluation(x_star, x_star, torch.zeros_like(x_star))
        point = self.output(evaluation, self.evaluate(x_star, context)[1], context)
        of_point = of_output
        if not of_output or any_row(cotangent != 0):
            pull = torch.func.vjp(lambda *p: self.retract(self._state(ConicPoint(*p), context), context), *point)[1]
            of_point = pull(cotangent)
            if of_output:
                of_point = tuple(map(torch.add, of_point, of_output))
        found = adjoint.vjp(context.problem, *point, *of_point)
        warn_untrusted(torch.where(found.degenerate, 0.0, found.residual))
        warn_instances(found.degenerate, "the program is degenerate there (see maps.scs.adjoint.vjp.ProgramGradient)")
        parts = {name: getattr(found, name) for name in ("A", "b", "c", "P")}
        return pytrees.replace(context.problem, pytrees.tensors(parts))

    def _state(self, point: ConicPoint, context: Context) -> Tensor:
        """(B, l) the v, with tau = 1, whose fixed point a solution belongs to."""
        D, E, sigma = context.rows.scaling
        R_y = self._metric(context)[..., self.n : -1]
        x, y, s = point
        v = torch.cat([sigma * x / E, sigma * (y / D + D * s / R_y), torch.ones_like(sigma)], 1)
        return v[:, self.absent :]

    def _whole(self, aux: InnerPoint, context: Context) -> InnerPoint:
        """The inner point with the coordinates that the state does not have."""
        if not self.eliminates:
            return aux
        free = eliminated.free(aux, self._metric(context), context)
        return aux._replace(
            v=torch.cat([free, aux.v], 1), linear_step=torch.cat([torch.zeros_like(free), aux.linear_step], 1)
        )

    def _norms(self, aux: InnerPoint, context: Context) -> residuals.KktNorms:
        """Of the inner point."""
        rows, shared, R = context.rows, context.shared, self._metric(context)
        if self.eliminates:
            return eliminated.kkt_norms(aux, R, context)
        data = rows.data if shared.A is None else rows.data._replace(A=shared.A, P=shared.P)
        x, y, tau = aux.u.split([self.n, self.m, 1], 1)
        s = aux.slack(R)[:, self.n : -1]
        return residuals.kkt_norms(data, rows.units, rows.scaling.sigma, x, y, s, tau)

    def _metric(self, context: Context) -> Tensor:
        """(n + m + 1,) or (B, n + m + 1) R."""
        return context.rows.R if context.shared.R is None else context.shared.R

    def _solve(self, v: Tensor, context: Context) -> Tensor:
        """(B, l - 1) p = K^{-1} (R_x v_x, -R_y v_y)."""
        if self.eliminates:
            return eliminated.solve(v[:, :-1], self._metric(context)[..., :-1], context)
        rows, shared = context.rows, context.shared
        signed = rows.signed if shared.signed is None else shared.signed
        return (shared.system or rows.system).solve(signed * v[:, :-1])

    def cold_state(self, context: Context) -> Tensor:
        """(B, l) the cold v = (0, 0, 1)."""
        g = context.rows.g[:, self.absent :]
        return torch.cat([torch.zeros_like(g), torch.ones_like(g[:, :1])], 1)

    def _from_origin(self, context: Context) -> tuple[Tensor, InnerPoint]:
        """SCS's iteration 0 from the cold v."""
        v = self.cold_state(context)
        return self._first(v, torch.zeros_like(v[:, :-1]), context)

    def _first(self, v: Tensor, p: Tensor, context: Context) -> tuple[Tensor, InnerPoint]:
        """SCS's iteration 0: a step with tau held at 1."""
        half = torch.cat([p - v[:, :-1] - context.rows.g[:, self.absent :], 1 - v[:, -1:]], 1)
        return self.step.project(v, half, context.rows.bounds, hold_tau=True)


def feature_count(program: ConeProgram) -> int:
    """The width of `SCS.featurize` for programs that share what this one shares."""
    varying = [name for name in ("A", "P") if getattr(program, name) is not None and getattr(program, name).ndim == 3]
    return program.m + program.n + sum(len(program.patterns[name]) for name in varying)
