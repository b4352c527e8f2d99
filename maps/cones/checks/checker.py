"""The checker: what it accepts, and all laws on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from fixedpoint.checks.report import Report
from maps.cones.checks import basics, calculus, geometry, rows  # noqa: F401 - they register their laws
from maps.cones.checks.case import FEWEST, ConeCase, cone_law
from maps.cones.cone import Cone

CONE_CHECKS: tuple[str, ...] = tuple(cone_law.names)
"""Names of the checks of `check_cone`, in order."""


def check_cone(
    cone: Cone,
    *,
    inequality: Callable[[Tensor], Tensor] | None = None,
    examples: int = 30,
    seed: int | None = 0,
    checks: Collection[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    raise_on_failure: bool = True,
) -> Report:
    """Test every law of cones on points that hypothesis chooses; what fails is shrunk to a smallest counterexample.

    The laws tell whether `project` and `project_dual` are the projections onto SOME closed convex cone and its dual,
    and whether their derivatives are right. That it is the cone you meant, only `inequality` can tell.

    Args:
        cone: a small one: 2 to 10 rows.
        inequality: (B, k) -> (B,), at most 0 exactly on the cone, and growing no faster than the points; for the
            second-order cone `lambda z: z[:, 1:].norm(dim=1) - z[:, 0]`.
        examples: batches of points that each law is tested on, at least 10; laws that take long get fewer.
        seed: of the points. None chooses other points every time.
        checks: names of those to run; by default all of CONE_CHECKS.
        expected_failures: check name -> reason. Strict: an expected failure that passes is a failure.
        raise_on_failure: raise CheckFailed unless all checks pass; else always return the report.

    Raises:
        CheckFailed: some checks failed; the message names them, the counterexamples and the probable mistakes.
        TypeError: `cone` is no Cone.
        ValueError: `examples` is less than 10, or `checks` or `expected_failures` has an unknown name.
        ModuleNotFoundError: hypothesis is not installed.
    """
    if not isinstance(cone, Cone):
        raise TypeError(f"cone: expected a Cone, got {cone!r}")
    if examples < FEWEST:
        raise ValueError(f"examples: expected at least {FEWEST}, got {examples}")
    import maps.cones.checks.strategies  # noqa: F401 - the missing hypothesis is reported here, not by every law

    laws = cone_law if checks is None else cone_law.only(checks)
    report = laws.test(repr(cone), lambda: ConeCase(cone, inequality, examples, seed), expected_failures)
    if raise_on_failure:
        report.raise_if_failed()
    return report
