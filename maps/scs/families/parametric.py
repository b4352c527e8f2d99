"""Families whose instances differ in b alone, which is affine in the parameters of one CVXPY problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from scipy import sparse
from torch import Tensor

from fixedpoint import Choice
from fixedpoint.search_space import SearchSpace
from maps.scs.family import ConicFamily
from maps.scs.iteration.map import SCS
from maps.scs.problem.program import ConeProgram


class Parametric(NamedTuple):
    """A cone program whose b is affine in some parameters, while A, c and P are fixed."""

    program: ConeProgram
    """At parameters 0."""
    slopes: Tensor
    """(parameters, m) what b gains with each."""

    @classmethod
    def of(cls, problem: Any, parameters: Sequence[Any], *, quadratic: bool) -> Parametric:
        """Read the affine map of a CVXPY problem from its compiled form.

        Args:
            problem: a `cvxpy.Problem`.
            parameters: its `cvxpy.Parameter`s, in the order that `at` takes them, each column by column.
            quadratic: whether squares go to P rather than to cones.
        """
        from maps.scs.cvxpy.canonical import Canonical
        from maps.scs.cvxpy.leaves import by_columns

        canonical = Canonical.of(problem, parameters, quadratic=quadratic)
        assert canonical.b.uses == tuple(range(len(parameters))), "b depends on every parameter"
        program = canonical.program([torch.zeros(parameter.size, dtype=torch.float64) for parameter in parameters])
        columns = sparse.block_diag([by_columns(parameter) for parameter in parameters])
        return cls(program, torch.from_numpy((canonical.b.map.matrix @ columns.T).T.toarray()))

    def at(self, values: Tensor) -> ConeProgram:
        """The batch of programs at parameters (B, k); A, c and P are shared."""
        base = self.program
        return ConeProgram(base.A, base.b + values @ self.slopes, base.c, base.P, base.cones)


class ParametricFamily(ConicFamily):
    """A family whose instances differ in b alone: scaled by A and P alone, a batch shares one sparse factorization.

    Args:
        form: of the program.
        program: one like those that `sample` makes.
        settings: arguments of `SCS`.
    """

    tunable: ClassVar[Mapping[str, SearchSpace]] = {**SCS.tunable, "normalize": Choice(("shared", False))}

    def __init__(self, form: str, program: ConeProgram, settings: Mapping[str, Any]) -> None:
        self.form = form
        self.map = SCS.of(program, **settings)
