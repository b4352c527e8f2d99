"""SCS's iteration as a fixed-point map.

The state is SCS 3's v = (v_x, v_y, v_tau) of length n + m + 1. One evaluation is one step of Douglas-Rachford splitting
on the homogeneous embedding of the program (O'Donoghue, "Operator splitting for a homogeneous embedding of the linear
complementarity problem", 2021), with the metric R = diag(rho_x I, R_y, tau_factor):

    u~ = (R + M)^{-1} R v     u = projection of 2 u~ - v     f(v) = v + alpha (u - u~)

f is homogeneous of degree 1, so `retract` normalises v to length sqrt(n + m + 1), as SCS does. SCS's own iteration 0
sets tau = 1 and is not this map: `initial` returns the state after it, so that our k evaluations are the wheel's
k + 1 iterations.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint import Assessment, Choice, Context, Evaluation, FixedPointMap, Range, Signature, Status
from fixedpoint.settings import Setting
from maps.cones import ConeSpec, ProductCone
from maps.scs import linear_system, scaling
from maps.scs.linear_system import LinearSystem
from maps.scs.program import ConeProgram
from maps.scs.scaling import Data, Scaling
from maps.scs.termination import kkt_residual

TAU_FLOOR = 1e-12
"""A solution divides by tau: below this share of the state's size there is none to speak of."""


class ConicPoint(NamedTuple):
    """A primal-dual point of a cone program, in its original units."""

    x: Tensor
    """(B, n)"""
    y: Tensor
    """(B, m) in K*"""
    s: Tensor
    """(B, m) in K"""


class Inner(NamedTuple):
    """By-products of a step: what x, y, s and tau are read from."""

    u: Tensor
    """(B, l) the projected point (x, y, tau)."""
    rsk: Tensor
    """(B, l) R (v + u - 2 u~) = (0, s, kappa)."""


class _Rows(NamedTuple):
    """What belongs to single instances."""

    data: Data
    """Scaled; A and P are empty here when the batch shares them."""
    scaling: Scaling
    system: LinearSystem | None
    g: Tensor
    """(B, n + m) K^{-1} (c, -b)."""


class _Shared(NamedTuple):
    """What the whole batch uses; None where every instance has its own."""

    A: Tensor | None
    P: Tensor | None
    system: LinearSystem | None


class SCS(FixedPointMap[ConeProgram, Context]):
    """The map of SCS 3.3.1 with a static scale, for programs with n variables over the given cones.

    The residual it reports is the largest of the three relative KKT residuals (primal, dual, gap) in the original data:
    each divided by absolute + relative * (the size of its terms), with (absolute, relative) = `error_weights`. It is
    infinite while tau vanishes, so that such an instance never converges.

    Args:
        n: number of variables.
        cones: rows of K, as in `ConeProgram`.
        normalize: scale the data as SCS does.
        scale: SCS's dual scale, > 0.
        zero_cone_factor: how much heavier rows of the zero cone weigh (SCS: 1000), > 0.
        alpha: SCS's relaxation, in (0, 2).
        rho_x: weight of x, > 0.
        tau_factor: weight of tau (SCS: 10), > 0. Large values behave as tau fixed at 1.
        error_weights: (absolute, relative), >= 0 and not both 0.
        features: width of `featurize` where it is known beforehand, see `feature_count`; 0 where it is not.

    Raises:
        ValueError: an argument outside its range, unknown cones.
    """

    ranks: ClassVar = {"A": 2, "b": 1, "c": 1, "P": 2}
    tunable: ClassVar[Mapping[str, Setting]] = {
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
        cones: ConeSpec,
        *,
        normalize: bool = True,
        scale: float = 0.1,
        zero_cone_factor: float = 1000.0,
        alpha: float = 1.5,
        rho_x: float = 1e-6,
        tau_factor: float = 10.0,
        error_weights: tuple[float, float] = (1.0, 1.0),
        features: int = 0,
    ) -> None:
        positive = {"scale": scale, "zero_cone_factor": zero_cone_factor, "rho_x": rho_x, "tau_factor": tau_factor}
        for name, value in positive.items():
            if not _is_number(value) or not 1e-100 < value < 1e100:
                raise ValueError(f"{name}: expected a positive number, got {value!r}")
        if not isinstance(normalize, bool):
            raise ValueError(f"normalize: expected True or False, got {normalize!r}")
        if not _is_number(alpha) or not 0 < alpha < 2:
            raise ValueError(f"alpha: expected a number in (0, 2), got {alpha!r}")
        if min(error_weights) < 0 or max(error_weights) <= 0:
            raise ValueError(f"error_weights: expected two numbers >= 0, one of them positive, got {error_weights}")
        self.cone = ProductCone(cones)
        self.n, self.m = n, self.cone.dim
        self.normalize, self.alpha, self.error_weights = normalize, alpha, error_weights
        self.scale, self.zero_cone_factor, self.rho_x, self.tau_factor = scale, zero_cone_factor, rho_x, tau_factor
        self.signature = Signature(
            size=n + self.m + 1,
            features=features,
            traits=frozenset({"nonexpansive", "averaged", "homogeneous"}),
            averagedness=alpha / 2,
            coordinates={
                "map": "scs",
                "n": n,
                "cones": self.cone.spec,
                "normalize": normalize,
                **positive,
                "alpha": alpha,
            },
        )

    @classmethod
    def of(cls, program: ConeProgram, **settings: Any) -> SCS:
        """The map for programs like this one: its size, its cones, and shared what it shares."""
        return cls(program.n, program.cones, features=feature_count(program), **settings)

    def faults(self, problem: ConeProgram) -> dict[str, Tensor]:
        """A P that is not symmetric, or not positive semidefinite."""
        if problem.P is None:
            return {}
        P = problem.P
        batch = problem.batch or 1
        size = P.abs().amax((-2, -1), keepdim=True)
        eps = torch.finfo(P.dtype).eps
        skew = ((P - P.mT).abs() > 1e3 * eps * size).any(-1).any(-1)
        shift = P.shape[-1] * 1e2 * eps * torch.where(size > 0, size, 1.0)
        identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        indefinite = torch.linalg.cholesky_ex((P + P.mT) / 2 + shift * identity).info > 0
        return {
            "P: expected a symmetric matrix (both triangles), got an asymmetric one": skew.expand(batch),
            "P: expected a positive semidefinite matrix, got an indefinite one": (indefinite & ~skew).expand(batch),
        }

    def setup(self, problem: ConeProgram) -> Context:
        """Scale the data and factor the linear system; once for the batch where A and P are shared and not scaled.

        Raises:
            ValueError: a program of another size or other cones.
            FactorizationError: see `linear_system.factor`.
        """
        if (problem.n, problem.cones) != (self.n, self.cone.spec):
            raise ValueError(
                f"program: this map is for n = {self.n} and cones {self.cone.spec}, got n = {problem.n} and cones "
                f"{problem.cones}"
            )
        batch = problem.batch or 1
        raw = Data(*_batch_axis(problem), problem.b.expand(batch, -1), problem.c.expand(batch, -1))
        if self.normalize:
            diagonals = scaling.equilibrate(raw, self.cone, problem.stored)
            data = scaling.apply(raw, diagonals)
        else:
            diagonals, data = scaling.identity(raw), raw
        shared = data.A.shape[0] == 1 and (data.P is None or data.P.shape[0] == 1) and batch > 1
        if shared:
            A, P = data.A[0], None if data.P is None else data.P[0]
        else:
            A = data.A.expand(batch, -1, -1)
            P = None if data.P is None else data.P.expand(batch, -1, -1)
        system = linear_system.factor(A, P, self._R_y(A), self.rho_x)
        g = torch.cat(system.solve(data.c, -data.b), 1)
        empty = data.b.new_zeros(batch, 0, 0)
        rows = _Rows(
            data=Data(empty, None, data.b, data.c) if shared else Data(A, P, data.b, data.c),
            scaling=diagonals,
            system=None if shared else system,
            g=g,
        )
        return Context(rows, _Shared(A, P, system) if shared else _Shared(None, None, None), problem)

    def featurize(self, context: Context) -> Tensor:
        """(B, k) the scaled data, flattened: b, c and, where they vary, the stored entries of A and P."""
        data, problem = context.rows.data, context.problem
        parts = [data.b, data.c]
        for name, part in (("A", data.A), ("P", data.P)):
            if part is not None and getattr(problem, name).ndim == 3:
                parts.append(part[:, *(torch.from_numpy(index) for index in np.nonzero(problem.stored[name]))])
        return torch.cat(parts, dim=1)

    def initial(self, context: Context) -> Tensor:
        """The state after SCS's iteration 0 from (0, 0, 1): no linear solve is needed for it."""
        g = context.rows.g
        one = torch.ones_like(g[:, :1])
        v = torch.cat([torch.zeros_like(g), one], 1)
        u_tilde = torch.cat([-g, one], 1)
        u = self._project(2 * u_tilde - v, first=True)
        return v + self.alpha * (u - u_tilde)

    def retract(self, x: Tensor, context: Context) -> Tensor:
        """V scaled to length sqrt(n + m + 1); 0 stays 0."""
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x * (self.signature.size**0.5 / torch.where(length > 0, length, torch.ones_like(length)))

    def normalized(self, x: Tensor, context: Context) -> Tensor:
        """(B, n + m) v / v_tau without its last entry; inf where v_tau vanishes or is negative (kappa > 0)."""
        tau = x[:, -1:]
        there = tau > TAU_FLOOR * torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return torch.where(there, x[:, :-1] / torch.where(there, tau, torch.ones_like(tau)), torch.inf)

    def metric(self, context: Context) -> Tensor:
        """R."""
        return self._R(context.rows.g).expand(context.rows.g.shape[0], -1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """One step of SCS."""
        return self.evaluate(x, context)[0]

    def evaluate(self, x: Tensor, context: Context) -> tuple[Tensor, Inner]:
        """One step of SCS and the inner point it went through."""
        rows = context.rows
        system = context.shared.system or rows.system
        R = self._R(x)
        mu, eta = x[:, :-1], x[:, -1:]
        top, bottom = (R[:-1] * mu).split([self.n, self.m], dim=1)
        p = torch.cat(system.solve(top, -bottom), 1)
        tau = self._tau(p, mu, eta, rows.g, R[:-1])
        u_tilde = torch.cat([p - tau * rows.g, tau], 1)
        u = self._project(2 * u_tilde - x, first=False)
        return x + self.alpha * (u - u_tilde), Inner(u, R * (x + u - 2 * u_tilde))

    def assess(self, evaluation: Evaluation, aux: Inner, context: Context) -> Assessment:
        """The largest relative KKT residual; infinite while tau vanishes."""
        data, tau = self._data(context), _safe(aux.u[:, -1:])
        x, y = (aux.u[:, :-1] / tau).split([self.n, self.m], 1)
        s = aux.rsk[:, self.n : -1] / tau
        worst = kkt_residual(data, context.rows.scaling, x, y, s, self.error_weights)
        gone = aux.u[:, -1] <= TAU_FLOOR * torch.linalg.vector_norm(aux.u, dim=1)
        worst = torch.where(gone, torch.inf, worst)
        return Assessment(worst, torch.full_like(worst, Status.RUNNING, dtype=torch.int64))

    def output(self, evaluation: Evaluation, aux: Inner, context: Context) -> ConicPoint:
        """x, y, s in the original units."""
        D, E, sigma = context.rows.scaling
        scale = _safe(aux.u[:, -1:]) * sigma
        x, y = aux.u[:, :-1].split([self.n, self.m], 1)
        return ConicPoint(E * x / scale, D * y / scale, aux.rsk[:, self.n : -1] / (D * scale))

    def _data(self, context: Context) -> Data:
        """The scaled data, shared matrices included."""
        data, shared = context.rows.data, context.shared
        return data if shared.A is None else data._replace(A=shared.A, P=shared.P)

    def _R_y(self, like: Tensor) -> Tensor:
        """(m,) metric of the rows."""
        zero = self.cone.equalities
        weights = torch.full((self.m,), 1 / self.scale, dtype=like.dtype, device=like.device)
        rows = torch.arange(self.m, device=like.device)
        return torch.where(rows < zero, weights / self.zero_cone_factor, weights)

    def _R(self, like: Tensor) -> Tensor:
        """(l,) the whole metric."""
        x = torch.full((self.n,), self.rho_x, dtype=like.dtype, device=like.device)
        tau = torch.full((1,), self.tau_factor, dtype=like.dtype, device=like.device)
        return torch.cat([x, self._R_y(like), tau])

    def _project(self, z: Tensor, *, first: bool) -> Tensor:
        """(free x, K* for y, tau >= 0, or tau = 1 in SCS's iteration 0).

        R is constant inside every block that is not separable, so the projection in its norm is the Euclidean one.
        """
        x, y, tau = z.split([self.n, self.m, 1], dim=1)
        return torch.cat([x, self.cone.project_dual(y), torch.ones_like(tau) if first else tau.relu()], 1)

    def _tau(self, p: Tensor, mu: Tensor, eta: Tensor, g: Tensor, R: Tensor) -> Tensor:
        """(B, 1) tau~: the larger root of a tau^2 + b tau + c = 0, without cancellation."""

        def dot(a: Tensor, b: Tensor) -> Tensor:
            return (R * a * b).sum(1, keepdim=True)

        a = self.tau_factor + dot(g, g)
        b = dot(mu, g) - 2 * dot(p, g) - self.tau_factor * eta
        c = dot(p, p) - dot(p, mu)
        discriminant = b * b - 4 * a * c
        real = discriminant > 0
        root = torch.sqrt(torch.where(real, discriminant, torch.ones_like(a)))
        q = torch.where(b > 0, -(b + root) / 2, torch.ones_like(a))
        stable = torch.where(b > 0, c / q, (root - b) / (2 * a))
        return torch.where(real, stable, -b / (2 * a))


def feature_count(program: ConeProgram) -> int:
    """The width of `SCS.featurize` for programs that share what this one shares."""
    varying = [name for name in ("A", "P") if getattr(program, name) is not None and getattr(program, name).ndim == 3]
    return program.m + program.n + sum(int(program.stored[name].sum()) for name in varying)


def _batch_axis(problem: ConeProgram) -> tuple[Tensor, Tensor | None]:
    """A and P with a batch axis, of length 1 where they are shared."""
    A, P = problem.A, problem.P
    return A if A.ndim == 3 else A[None], P if P is None or P.ndim == 3 else P[None]


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _safe(tau: Tensor) -> Tensor:
    """tau, or a tiny positive number in place of 0: finite, and never mistaken for a solution (see `assess`)."""
    return tau.clamp(min=1e-18)
