"""Anderson acceleration, types I and II, at every evaluation.

With r = f(x) - x and, over the last m evaluations, S = [dx], Y = [dr], the next point is

    x+ = f(x) - (S + Y) gamma - (1 - relaxation) (r - Y gamma)

where type II takes gamma = argmin ||r - Y gamma||_W (Anderson 1965) and type I solves S' W Y gamma = S' W r (Fang &
Saad 2009). W is the map's metric, so that the method is invariant where the map is.

Numerics: the columns are scaled to unit length, which makes `regularization` relative (an absolute ridge fails: it
stops working when the residual becomes small), the inner products are kept and updated from evaluation to evaluation,
and one step of refinement against Y itself recovers what squaring the condition number cost.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from fixedpoint import Accelerator, Evaluation, Range
from fixedpoint.search_space import SearchSpace
from fixedpoint.tensors.masks import any_row, finite_rows, where_rows


class AndersonState(NamedTuple):
    """The history of each instance: ring buffers of differences and their inner products."""

    x: Tensor
    """(B, n) the last point."""
    residual: Tensor
    """(B, n) its residual."""
    df: Tensor
    """(B, m, n) S + Y, unused slots zero."""
    dr: Tensor
    """(B, m, n) Y, unused slots zero."""
    gram: Tensor
    """(B, m, m) Y' W Y (type II) or S' W Y (type I)."""
    seen: Tensor
    """(B,) int64, evaluations seen."""
    metric: Tensor
    """(B, n) diagonal of W."""


class Anderson(Accelerator):
    """Anderson acceleration; `AndersonI` and `AndersonII` choose the secant condition.

    Args:
        memory: m >= 1, differences kept. The useful range is about 5 to 20.
        regularization: relative ridge >= 0 on the unit-length columns.
        relaxation: in (0, 2); 1 takes the whole step.
        interval: extrapolate at every `interval`-th evaluation, plain steps between.
        start: plain evaluations before the history begins: a map's transient makes bad secants.
        norm: "map" for the map's metric, "euclidean" to ignore it.

    Raises:
        ValueError: an argument outside its range.
    """

    uses_features = False
    learns_from_others: ClassVar[bool] = True
    tunable: ClassVar[Mapping[str, SearchSpace]] = {
        "memory": Range(3, 25, integer=True),
        "start": Range(0, 8, integer=True),
    }

    def __init__(
        self,
        memory: int = 10,
        regularization: float = 1e-10,
        relaxation: float = 1.0,
        interval: int = 1,
        start: int = 0,
        norm: Literal["map", "euclidean"] = "map",
    ) -> None:
        for name, value in (("memory", memory), ("interval", interval), ("start", start)):
            _require(name, isinstance(value, int) and not isinstance(value, bool), "a whole number", value)
        for name, number in (("regularization", regularization), ("relaxation", relaxation)):
            _require(name, isinstance(number, float | int), "a number", number)
        _require("memory", 1 <= memory <= 10_000, "1 to 10000", memory)
        _require("regularization", 0 <= regularization < 1, "a number in [0, 1)", regularization)
        _require("relaxation", 0 < relaxation < 2, "a number in (0, 2)", relaxation)
        _require("interval", interval >= 1, "at least 1", interval)
        _require("start", start >= 0, "at least 0", start)
        _require("norm", norm in ("map", "euclidean"), '"map" or "euclidean"', norm)
        self.memory, self.regularization, self.relaxation = memory, regularization, relaxation
        self.interval, self.start, self.norm = interval, start, norm
        self.promises = frozenset({"scale-invariant", "rotation-invariant"})
        if (relaxation, interval, start) == (1, 1, 0):
            self.promises |= {"finite-termination"}

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, AndersonState]:
        """Start at x0 with an empty history."""
        batch, size = x0.shape
        if metric is None or self.norm == "euclidean":
            metric = torch.ones_like(x0)
        empty = x0.new_zeros(batch, self.memory, size)
        return x0, AndersonState(
            x=x0,
            residual=torch.zeros_like(x0),
            df=empty,
            dr=empty.clone(),
            gram=x0.new_zeros(batch, self.memory, self.memory),
            seen=torch.zeros(batch, dtype=torch.int64, device=x0.device),
            metric=metric.expand_as(x0),
        )

    def step(self, at: Evaluation, state: AndersonState) -> tuple[Tensor, AndersonState]:
        """Record the newest difference, then extrapolate."""
        state = self.record(at, state)
        return self.extrapolate(at, state, self.relaxation), state

    def extrapolate(self, at: Evaluation, state: AndersonState, relaxation: Tensor | float) -> Tensor:
        """(B, n) the next point from a history that `record` has brought up to date; see `mix`."""
        mixed = mix(at, state, self.weights(at.residual, state), relaxation)
        usable = (state.seen % self.interval == 0) & finite_rows(mixed)
        return where_rows(usable, mixed, at.fx) if any_row(~usable) else mixed

    def slot(self, seen: Tensor) -> Tensor:
        """(B,) where in the ring the next difference goes after so many evaluations (from `start` + 1 on)."""
        return (seen - self.start - 1) % self.memory

    def record(self, at: Evaluation, state: AndersonState) -> AndersonState:
        """The state with the difference to the last evaluation in the ring's next slot."""
        new_x, new_r = at.x - state.x, at.residual - state.residual
        early = state.seen <= self.start  # there is no pair yet: its slot stays zero
        if any_row(early):
            new_x, new_r = (where_rows(early, torch.zeros_like(new), new) for new in (new_x, new_r))
        slot = self.slot(state.seen)
        place = torch.arange(len(slot), device=slot.device), slot  # a third of what `where` costs
        df, dr = state.df.index_put(place, new_x + new_r), state.dr.index_put(place, new_r)
        row = rows_times(dr, state.metric * self._left(new_x, new_r))
        column = row if self._symmetric else self._left_times(df, dr, state.metric * new_r)
        here = torch.arange(self.memory, device=slot.device) == slot[:, None]
        gram = torch.where(here[:, :, None], row[:, None, :], state.gram)
        gram = torch.where(here[:, None, :], column[:, :, None], gram)
        return AndersonState(at.x, at.residual, df, dr, gram, state.seen + 1, state.metric)

    def weights(self, residual: Tensor, state: AndersonState) -> Tensor:
        """(B, m) gamma; zero for unused slots, whose rows hold the ridge alone."""
        left_scale, right_scale = self._lengths(state)
        ridge = max(self.regularization, 16 * torch.finfo(residual.dtype).eps)
        identity = torch.eye(self.memory, dtype=residual.dtype, device=residual.device)
        matrix = state.gram / left_scale[:, :, None] / right_scale[:, None, :] + ridge * identity
        solve = self.solver(matrix)
        gamma, rest = torch.zeros_like(right_scale), residual
        for again in (True, False):  # the second round is the refinement
            right = self._left_times(state.df, state.dr, state.metric * rest)
            gamma = gamma + solve(right / left_scale) / right_scale
            if again:
                rest = residual - combine(gamma, state.dr)
        return gamma

    _symmetric: ClassVar[bool]
    """Whether the Gram matrix is."""

    @staticmethod
    @abstractmethod
    def _left(dx: Tensor, dr: Tensor) -> Tensor:
        """The vectors that gamma's residual is made orthogonal to."""

    @staticmethod
    @abstractmethod
    def _left_times(df: Tensor, dr: Tensor, vector: Tensor) -> Tensor:
        """(B, m) the inner products of those of the history with a vector (B, n)."""

    @staticmethod
    @abstractmethod
    def _lengths(state: AndersonState) -> tuple[Tensor, Tensor]:
        """(B, m) of those of the history, and of the dr; 1 for what is zero."""

    @staticmethod
    @abstractmethod
    def solver(matrix: Tensor) -> Callable[[Tensor], Tensor]:
        """A solver of (B, m, m) systems for right-hand sides (B, m); non-finite where it fails."""


class AndersonI(Anderson):
    """Anderson acceleration of type I: the quasi-Newton update of the Jacobian itself."""

    _symmetric = False

    @staticmethod
    def _left(dx: Tensor, dr: Tensor) -> Tensor:
        return -dx  # so that the matrix is monotone, and the ridge helps, where the map is nonexpansive

    @staticmethod
    def _left_times(df: Tensor, dr: Tensor, vector: Tensor) -> Tensor:
        return rows_times(dr - df, vector)

    @staticmethod
    def _lengths(state: AndersonState) -> tuple[Tensor, Tensor]:
        return lengths(state.dr - state.df, state.metric), lengths(state.dr, state.metric)

    @staticmethod
    def solver(matrix: Tensor) -> Callable[[Tensor], Tensor]:
        """By a QR factorization."""
        q, r = torch.linalg.qr(matrix)  # not LU: batched LU is unsafe under changed thread counts

        def solve(b: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(r, q.mT @ b[:, :, None], upper=True)[:, :, 0]

        return solve


class AndersonII(Anderson):
    """Anderson acceleration of type II: the residual is minimised over the history."""

    _symmetric = True

    @staticmethod
    def _left(dx: Tensor, dr: Tensor) -> Tensor:
        return dr

    @staticmethod
    def _left_times(df: Tensor, dr: Tensor, vector: Tensor) -> Tensor:
        return rows_times(dr, vector)

    @staticmethod
    def _lengths(state: AndersonState) -> tuple[Tensor, Tensor]:
        found = roots(state.gram.diagonal(dim1=1, dim2=2))
        return found, found

    @staticmethod
    def solver(matrix: Tensor) -> Callable[[Tensor], Tensor]:
        """By a Cholesky factorization: the matrix is symmetric."""
        factor, info = torch.linalg.cholesky_ex(matrix)
        factor = torch.where((info == 0)[:, None, None], factor, torch.nan)
        return lambda b: torch.cholesky_solve(b[:, :, None], factor)[:, :, 0]


def mix(at: Evaluation, state: AndersonState, gamma: Tensor, relaxation: Tensor | float) -> Tensor:
    """(B, n) the next point for weights (B, m); a relaxation per instance is (B, 1), per coordinate too (B, n)."""
    whole = at.fx - combine(gamma, state.df)
    if isinstance(relaxation, float | int) and relaxation == 1:
        return whole
    return whole - (1 - relaxation) * (at.residual - combine(gamma, state.dr))


def rows_times(rows: Tensor, vector: Tensor) -> Tensor:
    """(B, m, n) x (B, n) -> (B, m)."""
    return (vector[:, None] @ rows.mT)[:, 0]  # a row times a matrix is the fast order


def combine(gamma: Tensor, rows: Tensor) -> Tensor:
    """(B, m) x (B, m, n) -> (B, n)."""
    return (gamma[:, None, :] @ rows)[:, 0]


def lengths(rows: Tensor, metric: Tensor) -> Tensor:
    """(B, m) lengths of the rows in the metric; 1 for zero rows (whose derivative would be NaN)."""
    return roots((rows * rows * metric[:, None]).sum(2))


def roots(squared: Tensor) -> Tensor:
    """Square roots, 1 where they would be 0."""
    return torch.sqrt(torch.where(squared > 0, squared, torch.ones_like(squared)))


def _require(name: str, holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")
