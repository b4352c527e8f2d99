"""One law on many points: hypothesis chooses them, and shrinks those on which the law fails."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.errors import Flaky
from torch import Tensor

from fixedpoint.checks.report import Violation
from maps.cones.checks.strategies import tuples
from maps.cones.cone import Cone

_NAMES = "xyz"


def explore(
    name: str,
    law: Callable[..., None],
    cone: Cone,
    *,
    points: int,
    rows: tuple[int, int],
    examples: int,
    seed: int | None,
) -> None:
    """Call `law(x, ...)` with batches of points around the cone.

    Raises:
        Violation: the law does not hold; the message ends with the smallest points found on which it does not.
    """
    seen: list[Tensor] = []

    def body(drawn: tuple[Tensor, ...]) -> None:
        seen[:] = [t.clone() for t in drawn]
        law(*drawn)

    test = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )(hypothesis.given(tuples(cone, points, rows))(body))
    if seed is not None:
        test = hypothesis.seed(zlib.crc32(name.encode()) + seed)(test)
    try:
        test()
    except Flaky:
        raise Violation("the same points fail or not by chance: random numbers, or state kept in the cone?") from None
    except Exception as error:
        message = str(error) if isinstance(error, Violation) else f"raised {type(error).__name__}: {error}"
        raise Violation(f"{message}; smallest counterexample: {_shown(seen)}") from error


def _shown(drawn: list[Tensor]) -> str:
    return ", ".join(f"{name} = {t.tolist()}" for name, t in zip(_NAMES, drawn, strict=False))
