"""A parametrised CVXPY problem as a family of cone programs: compiled once, solved by the batch, differentiable."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cvxpy as cp
import torch

from fixedpoint import Accelerator, Choice, Prepared
from fixedpoint.search_space import SearchSpace
from fixedpoint.solve.front import Gradient
from fixedpoint.tensors.masks import where_rows
from maps.scs.cvxpy import problems
from maps.scs.cvxpy.canonical import Canonical
from maps.scs.cvxpy.solution import CvxpySolution, recovered
from maps.scs.cvxpy.solver import DEFAULTS
from maps.scs.cvxpy.values import Given, OnInvalid, read
from maps.scs.family import ConicFamily
from maps.scs.iteration.map import SCS
from maps.scs.iteration.settings import NAMES
from maps.scs.problem.program import ConeProgram
from maps.scs.solve import KEYWORDS, ConicSolution, prepare, solve

Sampler = Callable[[int, torch.Generator], Sequence[Any]]

FLOAT32_TOLERANCE = 1e-4
"""The default of `CvxpyFamily.solve` where float64 has that of `FixedPointSolver`, which float32 cannot reach."""


class CvxpyFamily(ConicFamily):
    """The instances of one CVXPY problem at all values of its parameters.

    CVXPY compiles the problem once. From then on a whole batch of values becomes cone programs by one sparse product,
    and is solved at once; variables and duals come back as tensors that are differentiable with respect to the values.
    What depends on no parameter is shared by the batch.

        family = CvxpyFamily(problem, [A, b])
        solution = family.solve([A_values, b_values], gradient="implicit")  # (B, m, n), (B, m)
        solution.variables, solution.duals, solution.statuses

    With a sampler it is a family like the registered ones: `fixedpoint compare my_problem.py:family`, and `tune` and
    `train` too.

    Args:
        problem: a `cvxpy.Problem`, DPP (`problem.is_dcp(dpp=True)`), with continuous real variables. It is not changed,
            nor are the values of its parameters used.
        parameters: its `cvxpy.Parameter`s, all of them, in the order that values are passed in.
        sampler: called with (batch, generator), gives the values of `batch` random instances, drawn with the generator
            alone: a list of tensors (batch, *shape). Only sampling needs it: tuning, training, comparing.
        quadratic: keep a quadratic objective quadratic (in P), rather than in second-order cones.
        **settings: arguments of `SCS`, for `map` and for `solve`. Where A and P do not depend on the parameters
            normalize="shared" is the default.

    Raises:
        TypeError: arguments of other kinds, an unknown setting.
        ValueError: parameters that are not the problem's; a problem that is not convex, not DPP, or has integer or
            complex variables: the message names them, or the offending expressions, and what to do.
    """

    needs = ("cvxpy", "scs")

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        sampler: Sampler | None = None,
        *,
        quadratic: bool = True,
        **settings: Any,
    ) -> None:
        problems.check(problem, parameters)
        if sampler is not None and not callable(sampler):
            raise TypeError(f"sampler: expected a function of (batch, generator), got {sampler!r}")
        self.problem, self.parameters, self.sampler = problem, list(parameters), sampler
        self._compiled: dict[bool, Canonical] = {}
        self._configure(quadratic, settings)

    def _configure(self, quadratic: bool, settings: Mapping[str, Any]) -> None:
        if not isinstance(quadratic, bool):
            raise TypeError(f"quadratic: expected True or False, got {quadratic!r}")
        if unknown := sorted(settings.keys() - NAMES):
            raise TypeError(
                f"CvxpyFamily: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(NAMES))}; "
                "tolerances (eps_abs, eps_rel) and budgets go to `solve`"
            )
        if quadratic not in self._compiled:
            self._compiled[quadratic] = Canonical.of(self.problem, self.parameters, quadratic=quadratic)
        self.quadratic, self.canonical = quadratic, self._compiled[quadratic]
        self.form = "quadratic" if self.canonical.P is not None else "conic"
        self.options = dict(settings)
        shared, fixed = self.canonical.shared, bool(settings.get("eliminate"))
        preset = ({"normalize": "shared"} if shared else {}) | ({"adaptive_scale": False} if fixed else {})
        self._settings = {**preset, **settings}
        canonical = self.canonical
        self.map = SCS(canonical.n, canonical.cones, features=canonical.features, **self._settings)
        self.tunable = _tunable(canonical)  # type: ignore[misc]

    def remade(self, **options: Any) -> CvxpyFamily:
        """The same problem and sampler with `quadratic` or settings changed; what was compiled is not compiled again.

        Raises:
            TypeError, ValueError: as the class.
        """
        made = copy.copy(self)
        made._configure(options.pop("quadratic", self.quadratic), {**self.options, **options})
        return made

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        """A batch of programs, at values from the sampler.

        Raises:
            ValueError: there is no sampler, or it does not give values for `batch` instances.
        """
        if self.sampler is None:
            names = ", ".join(parameter.name() for parameter in self.parameters)
            raise ValueError(
                "sampler: this CvxpyFamily has none to draw instances with; pass sampler=f, where f(batch, generator) "
                f"gives a list of tensors (batch, *shape), one for each of {names}"
            )
        values = self.sampler(batch, generator)
        try:
            program = self.program(values)
        except (TypeError, ValueError) as error:
            raise type(error)(f"sampler: {error}") from None
        if program.batch != batch:
            raise ValueError(f"sampler: expected values for {batch} instances, got {program.batch or 'no batch axis'}")
        return program

    def program(self, values: Sequence[Any]) -> ConeProgram:
        """The cone programs at parameter values; differentiable.

        Args:
            values: for each parameter, in their order, (B, *shape), or (*shape) for one that the batch shares; where
                all are, the program is a single one. Tensors or arrays; float32 or float64, whole numbers become
                float64.

        Returns:
            A `ConeProgram` of that dtype, in which A, b, c and P have a batch axis only where they depend on batched
            values.

        Raises:
            ValueError: another number of values, wrong shapes, batch sizes that differ; NaN, infinity, or a violated
                attribute of a parameter (nonneg, PSD, ...): the message names the parameter and the instances.
            TypeError: no numbers, or floats of several dtypes.
        """
        return self.canonical.program(read(self.parameters, values).values)

    def solve(
        self,
        values: Sequence[Any],
        accelerator: Accelerator | str | None = DEFAULTS["accelerator"],
        *,
        gradient: Gradient = None,
        on_invalid: OnInvalid = "raise",
        warm_start: CvxpySolution | ConicSolution | Sequence[Any] | None = None,
        **options: Any,
    ) -> CvxpySolution:
        """Solve the problem at a batch of parameter values, or at one.

        Args:
            values: as for `program`.
            accelerator: as for `maps.scs.solve`.
            gradient: "implicit" makes variables, duals and value differentiable with respect to the values; None
                refuses values that require grad. See `fixedpoint.solve`.
            on_invalid: what to do with instances whose values cannot be used: "raise" an error that names parameter
                and instances, or "mark" them INVALID and solve the others.
            warm_start: an earlier solution of this family, or (x, y, s) of the cone program.
            **options: other keywords of `maps.scs.solve`. What is given neither here nor to the family is as in
                `FixedPointSolver`: tolerances of 1e-6 (1e-4 for float32 values), a check every 5 evaluations,
                up to 100,000 of them.

        Raises:
            ValueError, TypeError: as `program` and `maps.scs.solve`.
        """
        if unknown := sorted(options.keys() - KEYWORDS):
            raise TypeError(f"solve: unknown {', '.join(unknown)}; known are {', '.join(sorted(KEYWORDS))}")
        given = read(self.parameters, values, on_invalid)
        defaults = {name: value for name, value in DEFAULTS.items() if name != "accelerator"}
        if given.values[0].dtype == torch.float32:
            defaults |= {"eps_abs": FLOAT32_TOLERANCE, "eps_rel": FLOAT32_TOLERANCE}
        settings = {name: value for name, value in self._settings.items() if name in KEYWORDS}
        start: Any = warm_start.solution if isinstance(warm_start, CvxpySolution) else warm_start
        try:
            solution = solve(
                self._marked(given),
                accelerator,
                gradient=gradient,
                on_invalid=on_invalid,
                warm_start=start,
                **{**defaults, **settings, **options},
            )
        except (TypeError, ValueError) as error:
            if not str(error).startswith("warm_start: "):
                raise
            hint = (
                "give the solution object that an earlier `family.solve` returned, as a whole, for a batch of this size"
            )
            raise type(error)(f"{error}; {hint}") from None
        maximize = isinstance(self.problem.objective, cp.Maximize)
        return recovered(self.canonical.recovery, solution, self.canonical.offset(given.values), maximize)

    def prepare(self, values: Sequence[Any], **options: Any) -> Prepared:
        """Scale and factor what does not depend on the values, for `solve(..., prepared=)`.

        Args:
            values: as for `program`, with a batch axis.
            **options: as for `maps.scs.prepare`; settings of this family need not be repeated.

        Raises:
            ValueError, TypeError: as `maps.scs.prepare`.
        """
        settings = {name: value for name, value in self._settings.items() if name in KEYWORDS}
        return prepare(self.program(values), **{**settings, **options})

    def _marked(self, given: Given) -> ConeProgram:
        """The programs, with NaN in c for the instances that cannot be used, which the solver then marks INVALID."""
        program = self.canonical.program(given.values)
        if given.bad is None:
            return program
        c = program.c.expand(len(given.bad), -1)
        spoilt = where_rows(given.bad, torch.full_like(c, torch.nan), c)
        return ConeProgram(program.A, program.b, spoilt, program.P, program.cones)


def _tunable(canonical: Canonical) -> dict[str, SearchSpace]:
    """The map's settings that matter here, and the form where there are two."""
    found: dict[str, SearchSpace] = dict(SCS.tunable)
    if canonical.shared:
        found["normalize"] = Choice(("shared", False))
    if "z" not in canonical.cones:
        del found["zero_cone_factor"]
    if canonical.P is not None:
        found["quadratic"] = Choice((True, False))
    return found
