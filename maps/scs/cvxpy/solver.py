"""Our conic solver inside CVXPY: `problem.solve(solver=FixedPointSolver(accelerator="anderson-2"))`.

CVXPY's own SCS interface does what the two have in common: the form Ax + s = b with SCS's row order, and the way back
from (x, y, s) to variables, duals and statuses. Imported only by who asks for it, since it loads CVXPY.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from cvxpy.reductions.solvers.conic_solvers.scs_conif import SCS as ScsInterface
from scipy import sparse

from fixedpoint import Accelerator, Status
from fixedpoint.plugins.composition import describe
from fixedpoint.plugins.registry import RegistryError
from fixedpoint.solution import Progress
from maps.scs.problem.program import ConeProgram
from maps.scs.solve import KEYWORDS, ConicSolution, solve

_NOT_HERE = {"warm_start", "gradient", "on_invalid", "chunk", "workers", "prepared"}
"""CVXPY's business, or of no meaning for one program."""
SETTINGS = KEYWORDS - _NOT_HERE | {"accelerator"}
"""Keywords of `FixedPointSolver`: `accelerator`, and those of `maps.scs.solve` that mean something inside CVXPY."""

DEFAULTS: Mapping[str, Any] = {
    "accelerator": "safeguarded",
    "eps_abs": 1e-6,
    "eps_rel": 1e-6,
    "max_evaluations": 100_000,
    "check_interval": 5,
    "adaptive_scale": True,
}
"""What CVXPY's users expect of a solver: more digits than SCS's own defaults, whatever the scale of the data.

A check costs a third of an evaluation, and one that comes late costs evaluations: 5 is between the two.
"""

_EXIT_CODES = {
    Status.CONVERGED: 1,
    Status.DIVERGED: -4,
    Status.PRIMAL_INFEASIBLE: -2,
    Status.DUAL_INFEASIBLE: -1,
}
"""SCS's, which CVXPY knows how to read; what is not here ended short of its tolerance, with a point to show."""
_INACCURATE = 2


class FixedPointSolver(ScsInterface):
    """A CVXPY solver that runs `maps.scs.solve`.

    Give an instance: `problem.solve(solver=FixedPointSolver(eps_abs=1e-8), max_evaluations=500)`. Keywords of
    `problem.solve` override the instance's. Solvers of equal settings are equal, so that CVXPY compiles a problem once
    even where the solver is made anew for every call; changing a keyword of `problem.solve` never compiles again.

    A problem that was solved before starts from its last solution unless `warm_start=False` (CVXPY's rule, which holds
    while the solver is equal). `problem.solver_stats.extra_stats["info"]` says whether it did ("warm_started"), and how
    the solve ended in this project's own terms.

    A budget that runs out gives CVXPY's "optimal_inaccurate" or, where tau vanished and there is no point to speak of,
    "infeasible_inaccurate" or "unbounded_inaccurate"; a diverged solve raises its SolverError. An infinite upper bound
    is no bound.

    Args:
        accelerator: an `Accelerator`, a registered name, or None for plain SCS.
        settings: of `maps.scs.solve`; see `SETTINGS` for the names and `DEFAULTS` for what differs from it.

    Raises:
        TypeError: an unknown keyword. Values are checked when solving, by `maps.scs.solve`.

    Source of the protocol: https://www.cvxpy.org/tutorial/solvers (custom solvers).
    """

    REQUIRES_CONSTR = False

    def __init__(self, accelerator: Accelerator | str | None = DEFAULTS["accelerator"], **settings: Any) -> None:
        super().__init__()
        self.settings = {**DEFAULTS, **_known(settings), "accelerator": accelerator}
        self._compared = {**self.settings, "accelerator": _content(accelerator)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FixedPointSolver) and type(self) is type(other) and self._compared == other._compared

    def __hash__(self) -> int:
        return hash((type(self), frozenset(self._compared)))  # by the names: values need not be hashable

    def name(self) -> str:
        """The name in `problem.solver_stats`."""
        return "FIXEDPOINT"

    def supports_quad_obj(self) -> bool:
        """Quadratic objectives stay quadratic (P)."""
        return True

    def apply(self, problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The data of a compiled problem, and what leads back from its solution.

        Raises:
            ValueError: NaN or infinity where it means nothing; names the parameters that hold it, or else the part.
        """
        data, inverse = super().apply(problem)
        _check_finite(data, problem.parameters)
        return data, inverse

    def solve_via_data(
        self,
        data: Mapping[str, Any],
        warm_start: bool,
        verbose: bool,
        solver_opts: Mapping[str, Any],
        solver_cache: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Solve compiled data; called by CVXPY.

        Args:
            data: A, b, c, maybe P, and the cones' "dims".
            warm_start: start from the solution in `solver_cache`, if it has one.
            verbose: print the progress.
            solver_opts: the keywords of `problem.solve`.
            solver_cache: what CVXPY keeps with the problem; the solution is left there.

        Returns:
            x, y, s and "info" as the scs package returns them (times in milliseconds), with additions in "info". The
            setup time is that of reading the data; scaling and factorizing belong to the solve time.

        Raises:
            TypeError: an unknown keyword.
        """
        settings = self.settings | _known({k: v for k, v in solver_opts.items() if k != "use_quad_obj"})
        accelerator = settings.pop("accelerator")
        began = time.perf_counter()
        program = _program(data)
        setup = time.perf_counter() - began
        cache = {} if solver_cache is None else solver_cache
        start = _previous(cache.get(self.name()), program) if warm_start else None
        watch = settings["callback"] = _Watch(verbose, settings.get("callback"))
        if verbose:
            print(f"{self.name()}: {program!r}, accelerator {accelerator}, start {'cold' if start is None else 'warm'}")
        solution = solve(program, accelerator, warm_start=start, **settings)
        results = _results(program, solution, watch.residual, setup)
        if verbose:
            print(_summary(results["info"]))
        if results["info"]["status_val"] in (1, 2):
            cache[self.name()] = results
        return results


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, all of whose names are known.

    Raises:
        TypeError: an unknown name.
    """
    if unknown := sorted(settings.keys() - SETTINGS):
        raise TypeError(f"FixedPointSolver: unknown {', '.join(unknown)}; known are {', '.join(sorted(SETTINGS))}")
    return dict(settings)


def _content(accelerator: Accelerator | str | None) -> Any:
    """What makes two accelerators the same: their description; with weights, or unregistered, only being the same."""
    if not isinstance(accelerator, Accelerator) or accelerator.learned_steps is not None:
        return accelerator
    try:
        return describe(accelerator)
    except (RegistryError, TypeError):
        return accelerator


def _check_finite(data: Mapping[str, Any], parameters: Iterable[Any]) -> None:
    """Raise ValueError where NaN or infinity means nothing: everywhere but in an upper bound (b of an inequality)."""
    b = data["b"].copy()
    bounds = slice(data["dims"].zero, data["dims"].zero + data["dims"].nonneg)
    b[bounds] = np.where(np.isposinf(b[bounds]), 0.0, b[bounds])
    faulty = [name for name, part in {**data, "b": b}.items() if name in ("A", "b", "c", "P") and not _is_finite(part)]
    if faulty:
        named = [parameter.name() for parameter in parameters if not _is_finite(parameter.value)]
        culprits = f"parameter {', '.join(named)}" if named else f"{', '.join(faulty)} (from the problem's constants)"
        raise ValueError(f"{culprits}: expected finite numbers, got NaN or infinity")


def _is_finite(part: Any) -> bool:
    return bool(np.isfinite(part.data if sparse.issparse(part) else part).all())


def _program(data: Mapping[str, Any]) -> ConeProgram:
    """The cone program of CVXPY's data. The row of an infinite bound becomes 0 x + s = 1, which binds nothing."""
    A, b, dims = data["A"], data["b"], data["dims"]
    absent = np.isposinf(b)
    if absent.any():
        A, b = sparse.diags(np.where(absent, 0.0, 1.0)) @ A, np.where(absent, 1.0, b)
    cones = {"z": dims.zero, "l": dims.nonneg, "q": dims.soc, "s": dims.psd, "ep": dims.exp, "p": dims.p3d}
    return ConeProgram(A, b, data["c"], data.get("P"), cones={key: value for key, value in cones.items() if value})


def _previous(results: Mapping[str, Any] | None, program: ConeProgram) -> tuple[np.ndarray, ...] | None:
    """(x, y, s) of the last solve, where it was of this size: what is no parameter may compile to another one."""
    if results is None or results["x"].shape != (program.n,) or results["y"].shape != (program.m,):
        return None
    return results["x"], results["y"], results["s"]


def _results(program: ConeProgram, solution: ConicSolution, residual: float, setup: float) -> dict[str, Any]:
    """The solution in the form of the scs package's; `residual` is the map's last, `setup` seconds went before."""
    x, y, s = (np.asarray(part) for part in (solution.x, solution.y, solution.s))
    status = Status(int(solution.status))
    code = _EXIT_CODES.get(status, _INACCURATE)
    if code == _INACCURATE and math.isinf(residual):  # tau vanished: a direction, of which SCS says where it points
        code = -7 if np.asarray(program.b) @ y < np.asarray(program.c) @ x else -6
    info = {
        "status": status.name,
        "status_val": code,
        "iter": int(solution.evaluations),
        "pobj": float(solution.objective),
        "res_pri": float(solution.primal_residual),
        "res_dual": float(solution.dual_residual),
        "gap": float(solution.gap),
        "setup_time": 1e3 * setup,
        "solve_time": 1e3 * solution.seconds,
        "warm_started": bool(solution.warm_started),
    }
    return {"x": x, "y": y, "s": s, "info": info}


def _summary(info: Mapping[str, Any]) -> str:
    return (
        f"  {info['status']} after {info['iter']} evaluations: primal residual {info['res_pri']:.1e}, dual residual "
        f"{info['res_dual']:.1e}, gap {info['gap']:.1e}; setup {info['setup_time']:.0f} ms, solve "
        f"{info['solve_time']:.0f} ms"
    )


class _Watch:
    """The callback of a solve: keeps the residual, prints it at ever longer intervals, calls the user's callback."""

    def __init__(self, verbose: bool, callback: Callable[[Progress], Any] | None) -> None:
        self.residual = math.inf
        self.due = 1.0 if verbose else math.inf
        self.callback = callback

    def __call__(self, progress: Progress) -> Any:
        self.residual = float(progress.residual[0])
        if progress.evaluations >= self.due:
            print(f"  {progress.evaluations:>8} evaluations: residual {self.residual:.2e}")
            self.due = 2 * progress.evaluations
        return None if self.callback is None else self.callback(progress)
