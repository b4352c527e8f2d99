"""Families whose instances differ in b alone, which is affine in the parameters of one CVXPY problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint import Choice
from fixedpoint.settings import Setting
from maps.scs.families.conic import ConicFamily
from maps.scs.map import SCS
from maps.scs.program import ConeProgram


class Parametric(NamedTuple):
    """A cone program whose b is affine in some parameters, while A, c and P are fixed."""

    program: ConeProgram
    """At parameters 0."""
    slopes: Tensor
    """(parameters, m) what b gains with each."""

    @classmethod
    def of(cls, problem: Any, parameters: Sequence[Any], *, quadratic: bool) -> Parametric:
        """Measure the affine map of a CVXPY problem: b at 0 and at each unit vector.

        Args:
            problem: a `cvxpy.Problem`.
            parameters: its `cvxpy.Parameter`s, in the order that `at` takes them, each column by column.
            quadratic: whether squares go to P rather than to cones.
        """
        ends = np.cumsum([parameter.size for parameter in parameters])

        def data(values: np.ndarray) -> dict[str, Any]:
            for parameter, part in zip(parameters, np.split(values, ends[:-1]), strict=True):
                parameter.value = part.reshape(parameter.shape, order="F")
            return problem.get_problem_data("SCS", solver_opts={"use_quad_obj": quadratic})[0]

        base = data(np.zeros(ends[-1]))
        dims = base["dims"]
        program = ConeProgram(
            A=base["A"],
            b=base["b"],
            c=base["c"],
            P=base.get("P"),
            cones={"z": dims.zero, "l": dims.nonneg, "q": dims.soc} | ({"s": dims.psd} if dims.psd else {}),
        )
        return cls(program, torch.from_numpy(np.stack([data(unit)["b"] - base["b"] for unit in np.eye(ends[-1])])))

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

    tunable: ClassVar[Mapping[str, Setting]] = {**SCS.tunable, "normalize": Choice(("shared", False))}

    def __init__(self, form: str, program: ConeProgram, settings: Mapping[str, Any]) -> None:
        self.form = form
        self.map = SCS.of(program, **{"linear_solver": "sparse", **settings})
