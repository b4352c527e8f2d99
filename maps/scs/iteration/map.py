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

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fixedpoint import Adaptation, Assessment, Choice, Context, Evaluation, FixedPointMap, Range, Signature
from fixedpoint.gradients.adjoint import warn_instances, warn_untrusted
from fixedpoint.search_space import SearchSpace
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import any_row, where_rows
from maps.cones import ConeSpec, ProductCone
from maps.scs import linear_systems
from maps.scs.adjoint import vjp as adjoint
from maps.scs.iteration import adaptive_scale, eliminated, residuals, settings
from maps.scs.iteration.setup import homogeneous, metric_diagonal, prepare
from maps.scs.iteration.state import ConicPoint, InnerPoint
from maps.scs.iteration.step import Step
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import entries
from maps.scs.problem.validation import faults

TAU_FLOOR = 1e-12
"""A solution divides by tau: below this share of the state's size there is none to speak of."""


class SCS(FixedPointMap[ConeProgram, Context]):
    """The map of SCS 3.3.1 for programs with n variables over the given cones.

    The residual it reports is the largest of the three relative KKT residuals (primal, dual, gap) in the original data:
    each divided by absolute + relative * (the size of its terms), with (absolute, relative) = `error_weights`. It is
    infinite while tau vanishes, so that such an instance never converges; it may show that it is infeasible or
    unbounded instead.

    Args:
        n: number of variables.
        cones: rows of K, as in `ConeProgram`, or a cone made of them.
        normalize: scale the data as SCS does; "shared": by diagonals that depend on A and P alone, so that a batch that
            shares these shares one factorization.
        scale: SCS's dual scale, > 0.
        zero_cone_factor: how much heavier rows of the zero cone weigh (SCS: 1000), > 0.
        alpha: SCS's relaxation, in (0, 2).
        rho_x: weight of x, > 0.
        tau_factor: weight of tau (SCS: 10), > 0. Large values behave as tau fixed at 1.
        weights: (m - equations,) positive numbers, one for each row that is not an equation, where R_y is weights /
            scale; None: all 1. Rows of a cone that is not separable have one weight.
        eliminate: the limit rho_x -> 0, zero_cone_factor -> infinity (`eliminated`): x and the duals of equations are
            solved for exactly in every step and leave the state, which has one number for each inequality and one for
            tau. Fewer numbers to move, store and learn; `rho_x` and `zero_cone_factor` have no say. Not with
            `adaptive_scale`, nor with the linear solvers "sparse" and "cg"; of no effect without inequalities. x and
            these duals must be determined by the rest: equations that (nearly) repeat each other are refused.
        adaptive_scale: let a solve change the scale of each instance, by SCS's scalar rule; it then has a
            factorization of its own.
        error_weights: (absolute, relative), >= 0 and not both 0.
        eps_infeas: violation of a certificate, relative to its inner product, >= 0; 0 never certifies.
        check_interval: evaluations between two checks of a solve (SCS: 25), >= 1.
        first_check: the evaluation that is checked first; None: `check_interval`. Not with `adaptive_scale`.
        linear_solver: "dense", "condensed" (sparse, some unknowns eliminated first), "sparse" (SuperLU), "cg"
            (conjugate gradients) or "auto".
        dtype: of the iteration, torch.float32 or torch.float64; by default that of the data.
        features: width of `featurize` where it is known beforehand, see `feature_count`; 0 where it is not.

    Raises:
        ValueError: an argument outside its range, unknown cones.
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

    def __init__(
        self,
        n: int,
        cones: ConeSpec | ProductCone,
        *,
        normalize: bool | str = True,
        scale: float = 0.1,
        zero_cone_factor: float = 1000.0,
        alpha: float = 1.5,
        rho_x: float = 1e-6,
        tau_factor: float = 10.0,
        weights: Sequence[float] | None = None,
        eliminate: bool = False,
        adaptive_scale: bool = False,
        error_weights: tuple[float, float] = (1.0, 1.0),
        eps_infeas: float = 1e-7,
        check_interval: int = 1,
        first_check: int | None = None,
        linear_solver: str = "auto",
        dtype: torch.dtype | None = None,
        features: int = 0,
    ) -> None:
        coordinates: dict[str, Any] = {
            "normalize": normalize,
            "scale": scale,
            "zero_cone_factor": zero_cone_factor,
            "rho_x": rho_x,
            "tau_factor": tau_factor,
            "alpha": alpha,
            "adaptive_scale": adaptive_scale,
        }
        others = {
            "eliminate": eliminate,
            "error_weights": error_weights,
            "eps_infeas": eps_infeas,
            "check_interval": check_interval,
            "first_check": first_check,
            "linear_solver": linear_solver,
            "dtype": dtype,
        }
        settings.check({"n": n, **coordinates, **others})
        self.cone = cones if isinstance(cones, ProductCone) else ProductCone(cones)
        self.n, self.m = n, self.cone.dim
        self.weights = None if weights is None else settings.row_weights(weights, self.cone)
        if weights is not None:
            coordinates["weights"] = [float(weight) for weight in weights]
        eliminate = eliminate and self.m > self.cone.equalities  # else there would be nothing left
        self.first = n + self.cone.equalities if eliminate else 0
        """Of (x, y, tau) the first coordinate that the state has."""
        if eliminate:
            coordinates = {k: v for k, v in coordinates.items() if k not in ("rho_x", "zero_cone_factor")}
            coordinates["eliminate"] = True
        self.step = Step(n + self.cone.equalities - self.first, self.cone, alpha)
        self.normalize, self.alpha, self.error_weights = normalize, alpha, error_weights
        self.scale, self.zero_cone_factor, self.rho_x, self.tau_factor = scale, zero_cone_factor, rho_x, tau_factor
        self.adaptive_scale, self.eps_infeas, self.linear_solver = adaptive_scale, eps_infeas, linear_solver
        self.check_interval, self.first_check, self.dtype = check_interval, first_check, dtype
        self.signature = Signature(
            size=n + self.m + 1 - self.first,
            features=features,
            traits=frozenset({"nonexpansive", "averaged", "homogeneous"}),
            averagedness=alpha / 2,
            coordinates={"map": "scs", "n": n, "cones": self.cone.spec, **coordinates},
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
        return self._prepared(problem, None)

    def setup_from(self, problem: ConeProgram, earlier: Context) -> Context:
        """`setup`, with the scaling and the factor of an earlier batch that shared the same tensors A and P."""
        return self._prepared(problem, earlier)

    def _prepared(self, problem: ConeProgram, earlier: Context | None) -> Context:
        if (problem.n, problem.cones) != (self.n, self.cone.spec):
            raise ValueError(
                f"program: this map is for n = {self.n} and cones {self.cone.spec}, got n = {problem.n} and cones "
                f"{problem.cones}"
            )
        context = prepare(self, problem, earlier)
        if self.adaptive_scale:
            rows = context.rows
            _, inner = self._from_origin(context)
            history = adaptive_scale.begin(self.scale, self._sizes(inner, context))
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
        return self._metric(context)[..., self.first :].expand(context.rows.g.shape[0], -1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """One step of SCS."""
        return self.evaluate(x, context)[0]

    def evaluate(self, x: Tensor, context: Context) -> tuple[Tensor, InnerPoint]:
        """One step of SCS and the inner point it went through."""
        rows, R = context.rows, self._metric(context)[..., self.first :]
        p = self._solve(x, context)
        return self.step(x, p, rows.g[:, self.first :], rows.weighted, rows.curvature, R, rows.bounds)

    def assess(self, evaluation: Evaluation, aux: InnerPoint, context: Context) -> Assessment:
        """The largest relative KKT residual, infinite while tau vanishes; and what a certificate shows."""
        rows = context.rows
        point = self._sizes(aux, context)
        worst = residuals.kkt_residual(point._replace(tau=_safe(point.tau)), self.error_weights)
        u = aux.u
        gone = u[:, -1] <= TAU_FLOOR * torch.linalg.vector_norm(u, dim=1)
        worst = torch.where(gone, torch.inf, worst)
        if self.eps_infeas == 0:
            return Assessment(worst, torch.zeros_like(worst, dtype=torch.int64))
        return Assessment(worst, residuals.certificate(point, rows.scaling.sigma, rows.weights, self.eps_infeas))

    def adapt(self, at: Evaluation, aux: InnerPoint, context: Context) -> Adaptation | None:
        """SCS's scalar rule for the scale; s and kappa, x and y stay what they are, v follows the new metric."""
        rows = context.rows
        if rows.history is None:
            return None
        history, changed = adaptive_scale.update(rows.history, self._sizes(aux, context), self.check_interval)
        rows = rows._replace(history=history)
        x, fx = at.x, at.fx
        if any_row(changed):
            R = metric_diagonal(self, history.scale)
            kind, data, R_y = context.shared.solver, rows.data, R[:, self.n : -1]
            try:
                system = linear_systems.factor(kind, data.A, data.P, R_y, self.rho_x)
            except linear_systems.FactorizationError:  # the batch goes on with the scales that it has, and waits anew
                rows = rows._replace(history=history._replace(scale=context.rows.history.scale))
                return Adaptation(context._replace(rows=rows), x, fx, torch.zeros_like(changed))
            x = x + where_rows(changed, aux.slack(self._metric(context)) * (1 / R - 1 / rows.R), torch.zeros_like(x))
            fx = x + at.residual
            rows = rows._replace(R=R, system=system, **homogeneous(system, R, data.c, data.b, self.first, data.b.dtype))
        return Adaptation(context._replace(rows=rows), x, fx, changed)

    def original(self, at: Evaluation, aux: InnerPoint, context: Context) -> Tensor:
        """V under the scale that a solve begins with."""
        R = context.rows.R
        if context.rows.history is None or R is None:
            return at.x
        return at.x + aux.slack(self._metric(context)) * (
            1 / metric_diagonal(self, torch.full_like(R[:, 0], self.scale)) - 1 / R
        )

    def output(self, evaluation: Evaluation, aux: InnerPoint, context: Context) -> ConicPoint:
        """x, y, s in the original units."""
        D, E, sigma = context.rows.scaling
        scale = _safe(aux.last) * sigma
        whole = self._whole(aux, context)
        x, y, _ = whole.u.split([self.n, self.m, 1], 1)
        return ConicPoint(
            E * x / scale, D * y / scale, whole.slack(self._metric(context))[:, self.n : -1] / (D * scale)
        )

    def implicit_vjp(self, x_star: Tensor, context: Context, cotangent: Tensor) -> ConeProgram:
        """See `FixedPointMap.implicit_vjp`; warnings as for `output_vjp`."""
        return self.output_vjp(x_star, context, cotangent, ())

    def output_vjp(self, x_star: Tensor, context: Context, of_x: Tensor, of_output: tuple[Tensor, ...]) -> ConeProgram:
        """See `FixedPointMap.output_vjp`: by the optimality conditions of the program (`adjoint`).

        Warns:
            AdjointWarning: degenerate instances, whose gradient is not unique or does not exist.
        """
        evaluation = Evaluation(x_star, x_star, torch.zeros_like(x_star))
        point = self.output(evaluation, self.evaluate(x_star, context)[1], context)
        of_point = of_output
        if not of_output or any_row(of_x != 0):
            pull = torch.func.vjp(lambda *p: self.retract(self._state(ConicPoint(*p), context), context), *point)[1]
            of_point = pull(of_x)
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
        return v[:, self.first :]

    def _whole(self, aux: InnerPoint, context: Context) -> InnerPoint:
        """The inner point with the coordinates that the state does not have."""
        if not self.first:
            return aux
        free = eliminated.free(aux, self._metric(context), context)
        return aux._replace(v=torch.cat([free, aux.v], 1), half=torch.cat([torch.zeros_like(free), aux.half], 1))

    def _sizes(self, aux: InnerPoint, context: Context) -> residuals.KktNorms:
        """Of the inner point."""
        rows, shared, R = context.rows, context.shared, self._metric(context)
        if self.first:
            return eliminated.sizes(aux, R, context)
        data = rows.data if shared.A is None else rows.data._replace(A=shared.A, P=shared.P)
        x, y, tau = aux.u.split([self.n, self.m, 1], 1)
        s = aux.slack(R)[:, self.n : -1]
        return residuals.kkt_norms(data, rows.units, rows.scaling.sigma, x, y, s, tau)

    def _metric(self, context: Context) -> Tensor:
        """(n + m + 1,) or (B, n + m + 1) R."""
        return context.rows.R if context.shared.R is None else context.shared.R

    def _solve(self, v: Tensor, context: Context) -> Tensor:
        """(B, l - 1) p = K^{-1} (R_x v_x, -R_y v_y)."""
        weight = self._metric(context)[..., :-1]
        if self.first:
            return eliminated.solve(v[:, :-1], weight, context)
        system = context.shared.system or context.rows.system
        sign = torch.cat([v.new_ones(self.n), v.new_full((self.m,), -1.0)])
        return system.solve(weight * sign * v[:, :-1])

    def cold_state(self, context: Context) -> Tensor:
        """(B, l) the cold v = (0, 0, 1)."""
        g = context.rows.g[:, self.first :]
        return torch.cat([torch.zeros_like(g), torch.ones_like(g[:, :1])], 1)

    def _from_origin(self, context: Context) -> tuple[Tensor, InnerPoint]:
        """SCS's iteration 0 from the cold v."""
        v = self.cold_state(context)
        return self._first(v, torch.zeros_like(v[:, :-1]), context)

    def _first(self, v: Tensor, p: Tensor, context: Context) -> tuple[Tensor, InnerPoint]:
        """SCS's iteration 0: a step with tau held at 1."""
        half = torch.cat([p - v[:, :-1] - context.rows.g[:, self.first :], 1 - v[:, -1:]], 1)
        return self.step.second(v, half, context.rows.bounds, first=True)


def feature_count(program: ConeProgram) -> int:
    """The width of `SCS.featurize` for programs that share what this one shares."""
    varying = [name for name in ("A", "P") if getattr(program, name) is not None and getattr(program, name).ndim == 3]
    return program.m + program.n + sum(len(program.patterns[name]) for name in varying)


def _safe(tau: Tensor) -> Tensor:
    """tau, or a tiny positive number in place of 0: finite, and never mistaken for a solution (see `assess`)."""
    return tau.clamp(min=1e-18)
