"""Robust principal components: a low-rank matrix and sparse outliers, told apart.

minimize ||L||_*   subject to   ||S||_1 <= mu,   L + S = M,   M 30 x 3
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fixedpoint.experiments.evaluation import Peer, PeerPoint
from fixedpoint.search_space import SearchSpace
from maps.scs.families.parametric import Parametric, ParametricFamily
from maps.scs.family import PAPER
from maps.scs.iteration.state import ConicPoint
from maps.scs.problem.program import ConeProgram
from maps.scs.scs_package import ScsWheel

ROWS, COLUMNS = 30, 3
ENTRIES = ROWS * COLUMNS
FORMS = ("nuclear", "norms", "conic")
SLOPES = 4.0, 32.0
"""Of the cones of the form "norms", sum of magnitudes and nuclear norm; chosen by search on training instances."""


class RobustPCA(ParametricFamily):
    """M = L* + S*: L* a product of two factors ~ N(0, 1), S* zero but for a tenth of the entries ~ 10 N(0, 1).

    The radius mu is ||S*||_1. CVXPY writes the nuclear norm as a semidefinite program of order 33, the same with a
    quadratic objective or without; the form "nuclear" leaves it whole, in a cone of its own, and "norms" the sum of the
    magnitudes too. The setting "paper" is the neural-acceleration paper's: conic form in the metric of SCS 2; "norms"
    is that form with the state of the inequalities alone.

    Args:
        form: "nuclear" (n = 181, m = 272), "norms" (n = 91, m = 182) or "conic" (n = 741, m = 832, the paper's). Points
            of "norms" are judged as the points of "nuclear" that they stand for.
        rank: of L*, 1 to 3.
        outliers: entries of S* that are not zero, 1 to 90.
        size: standard deviation of these.
        **settings: arguments of `SCS`.

    Raises:
        ValueError: an unknown form, a rank or a number of outliers out of range, a size that is not positive.
    """

    needs = ("cvxpy", "scs")
    # not the form: the conic one takes as many evaluations, each several times as long; "nuclear" has no zero cone
    tunable: ClassVar[Mapping[str, SearchSpace]] = {
        name: setting for name, setting in ParametricFamily.tunable.items() if name != "zero_cone_factor"
    }
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"form": "conic", **PAPER},
        "norms": {"form": "norms", "eliminate": True, "normalize": False},
    }
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "outliers x2": {"size": 20.0},
        "outliers x4": {"size": 40.0},
        "rank 1, sparsity x2": {"rank": 1, "outliers": 18},
    }

    def __init__(
        self, form: str = "nuclear", rank: int = 2, outliers: int = 9, size: float = 10.0, **settings: Any
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
        for name, value, most in (("rank", rank, COLUMNS), ("outliers", outliers, ENTRIES)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"{name}: expected a whole number from 1 to {most}, got {value!r}")
        if not size > 0:
            raise ValueError(f"size: expected a number > 0, got {size!r}")
        self.rank, self.outliers, self.size = rank, outliers, size
        super().__init__(form, template(form).program, settings)

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        """A batch of programs, float64; b varies, A and c are shared."""
        low, sparse = (torch.stack(part) for part in zip(*(self._draw(generator) for _ in range(batch)), strict=True))
        radius = sparse.abs().sum((1, 2))[:, None]
        return template(self.form).at(torch.cat([(low + sparse).mT.flatten(1), radius], 1))

    def error(self, problem: ConeProgram, output: ConicPoint, residual: Tensor) -> Tensor:
        """(B,) `kkt_error`."""
        return super().error(*self._judged(problem, output), residual)

    def merit(self, problem: ConeProgram, output: ConicPoint, residual: Tensor) -> Tensor:
        """(B,) `kkt_merit`; infinite where the map's residual is."""
        return super().merit(*self._judged(problem, output), residual)

    def _judged(self, problem: ConeProgram, output: ConicPoint) -> tuple[ConeProgram, ConicPoint]:
        return as_nuclear(problem, output) if self.form == "norms" else (problem, output)

    def peers(self) -> list[Peer]:
        """The scs package as it comes, on the conic form; none for "norms", where it is the same as for "nuclear"."""
        return self._on_the_conic_form(super().peers())

    def matched_peers(self) -> list[Peer]:
        """The scs package with our settings, on the conic form."""
        return self._on_the_conic_form(super().matched_peers())

    def _on_the_conic_form(self, peers: list[Peer]) -> list[Peer]:
        if self.form == "norms":  # whose settings are in other units besides
            return []
        return peers if self.form == "conic" else [_ConicWheel(peer.name, peer.settings) for peer in peers]

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(L*, S*), each (30, 3), of one instance."""
        left, right, values = (
            torch.randn(*shape, generator=generator, dtype=torch.float64)
            for shape in ((ROWS, self.rank), (self.rank, COLUMNS), (ENTRIES,))
        )
        order = torch.randperm(ENTRIES, generator=generator).argsort()
        sparse = torch.where(order < self.outliers, self.size * values, 0.0)
        return left @ right, sparse.reshape(ROWS, COLUMNS)


class _ConicWheel(ScsWheel):
    """The scs package, which has no nuclear norm, on the conic form of the instances it is given."""

    def run(self, problem: ConeProgram, evaluations: Iterable[int]) -> Iterator[PeerPoint]:
        """See `ScsWheel.run`."""
        return super().run(template("conic").at(parameters(problem)), evaluations)


def parameters(problem: ConeProgram) -> Tensor:
    """(B, 91) vec M and mu of a batch in the form "nuclear" or "norms"."""
    if problem.n == 2 * ENTRIES + 1:
        return problem.b[:, ENTRIES : 2 * ENTRIES + 1]
    return torch.cat([problem.b[:, 1 : ENTRIES + 1], SLOPES[0] * problem.b[:, :1]], 1)


def as_nuclear(problem: ConeProgram, point: ConicPoint) -> tuple[ConeProgram, ConicPoint]:
    """A batch in the form "norms" and a point of it, in the form "nuclear": the same t, L and violations, U = |S|.

    A dual matrix Y of the entries with |Y| <= lambda becomes (lambda - Y) / 2 and (lambda + Y) / 2 on the two sides.
    """
    flat, steep = SLOPES
    widths = [1, ENTRIES, 1, ENTRIES]
    (bound, outer, one, inner), (radius, rest, t, low) = (part.split(widths, 1) for part in (point.y, point.s))
    U, bound = rest.abs(), bound / flat
    y = torch.cat([(bound - outer) / 2, (bound + outer) / 2, bound, one / steep, inner], 1)
    s = torch.cat([U - rest, U + rest, flat * radius - U.sum(1, keepdim=True), steep * t, low], 1)
    return template("nuclear").at(parameters(problem)), ConicPoint(torch.cat([point.x, U], 1), y, s)


@cache
def template(form: str) -> Parametric:
    """The program of a form as a function of (M, mu), made once per process."""
    return {"nuclear": _nuclear, "norms": _norms, "conic": _semidefinite}[form]()


def _semidefinite() -> Parametric:
    """What CVXPY makes of it."""
    import cvxpy as cp

    M, radius = cp.Parameter((ROWS, COLUMNS)), cp.Parameter(nonneg=True)
    low, sparse = cp.Variable((ROWS, COLUMNS)), cp.Variable((ROWS, COLUMNS))
    problem = cp.Problem(cp.Minimize(cp.normNuc(low)), [cp.norm1(sparse) <= radius, low + sparse == M])
    return Parametric.of(problem, [M, radius], quadratic=False)


def _nuclear() -> Parametric:
    """In (t, vec L, vec U): minimize t such that |M - L| <= U, the sum of U is at most mu, and ||L||_* <= t."""
    from scipy import sparse

    one, total = sparse.eye_array(ENTRIES), np.ones((1, ENTRIES))
    rows = [[None, -one, -one], [None, one, -one], [None, None, total], [-np.eye(1), None, None], [None, -one, None]]
    cones = {"l": 2 * ENTRIES + 1, "nuclear-norm": [[ROWS, COLUMNS]]}
    b, c = np.zeros(3 * ENTRIES + 2), np.eye(1, 2 * ENTRIES + 1)[0]
    slopes = sparse.block_array([[-one, one, None, None], [None, None, np.eye(1), np.zeros((1, ENTRIES + 1))]])
    return Parametric(ConeProgram(sparse.block_array(rows), b, c, None, cones), torch.from_numpy(slopes.toarray()))


def _norms() -> Parametric:
    """In (t, vec L): minimize t such that ||L||_* <= t and ||M - L||_1 <= mu; t and mu are in units of the slopes."""
    from scipy import sparse

    (flat, steep), one, none = SLOPES, sparse.eye_array(ENTRIES), sparse.csr_array((1, 1))
    rows = [[none, None], [None, one], [-np.eye(1) / steep, None], [None, -one]]
    cones = {"l1-norm": [[ENTRIES, flat]], "nuclear-norm": [[ROWS, COLUMNS, steep]]}
    b, c = np.zeros(2 * ENTRIES + 2), np.eye(1, ENTRIES + 1)[0]
    slopes = sparse.block_array([[None, one, None], [np.eye(1) / flat, None, sparse.csr_array((1, ENTRIES + 1))]])
    return Parametric(ConeProgram(sparse.block_array(rows), b, c, None, cones), torch.from_numpy(slopes.toarray()))
