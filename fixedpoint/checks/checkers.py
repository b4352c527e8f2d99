"""The two checkers: what they accept, and all laws on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fixedpoint.checks.accelerators import basics as _accelerator_basics  # noqa: F401 - they register their laws
from fixedpoint.checks.accelerators import promises as _promises  # noqa: F401
from fixedpoint.checks.accelerators.case import AcceleratorCase, accelerator_law
from fixedpoint.checks.maps import basics as _map_basics  # noqa: F401
from fixedpoint.checks.maps import calculus as _calculus  # noqa: F401
from fixedpoint.checks.maps import gradient as _gradient  # noqa: F401
from fixedpoint.checks.maps import rows as _rows  # noqa: F401
from fixedpoint.checks.maps.case import MapCase, map_law
from fixedpoint.checks.report import Report
from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.signature import Signature
from fixedpoint.tensors import pytrees

MAP_CHECKS: tuple[str, ...] = tuple(map_law.names)
"""Names of the checks of `check_map`, in order."""
ACCELERATOR_CHECKS: tuple[str, ...] = tuple(accelerator_law.names)
"""Names of the checks of `check_accelerator`, in order."""


def check_map(
    map: FixedPointMap,
    problem: Any,
    *,
    reference: Tensor | None = None,
    expected_failures: Mapping[str, str] | None = None,
    raise_on_failure: bool = True,
) -> Report:
    """Test every law of maps on a batch of problems (which is copied first).

    Args:
        map: the map.
        problem: a batch of at least 3 ordinary problems that differ, well posed enough to be solved; 4 to 6 of a
            small size are best.
        reference: (B, n) the fixed points, where they are known independently of the iteration.
        expected_failures: check name -> reason. Strict: an expected failure that passes is a failure.
        raise_on_failure: raise CheckFailed unless all checks pass; else always return the report.

    Raises:
        CheckFailed: some checks failed; the message names them and the probable mistakes.
        TypeError: `map` is no FixedPointMap.
        ValueError: `problem` or `reference` cannot be used, or `expected_failures` has an unknown name.
    """
    if not isinstance(map, FixedPointMap):
        raise TypeError(f"map: expected a FixedPointMap, got {map!r}")
    batch = pytrees.batch_size(problem, map.ranks)
    if batch is None or batch < 3:
        raise ValueError(f"problem: expected a batch of at least 3, got {'one' if batch is None else batch}")
    for message, bad in pytrees.nonfinite(problem, map.ranks, batch).items():
        if bool(bad.any()):
            raise ValueError(message)
    shape = (batch, map.signature.size)
    if reference is not None and tuple(reference.shape) != shape:
        raise ValueError(f"reference: expected shape {shape}, got {tuple(reference.shape)}")
    report = map_law.test(type(map).__name__, lambda: MapCase(map, problem, reference), expected_failures)
    if raise_on_failure:
        report.raise_if_failed()
    return report


def check_accelerator(
    accelerator: Accelerator | Callable[[], Accelerator],
    *,
    signature: Signature | None = None,
    expected_failures: Mapping[str, str] | None = None,
    raise_on_failure: bool = True,
) -> Report:
    """Test every law of accelerators, and those that this one declares of itself, on small affine maps.

    Args:
        accelerator: an instance, or what makes one without arguments.
        signature: of the maps that it serves; by default the one that it was built for, else a small one of no map.
        expected_failures: check name -> reason. Strict: an expected failure that passes is a failure.
        raise_on_failure: raise CheckFailed unless all checks pass; else always return the report.

    Raises:
        CheckFailed: some checks failed; the message names them and the probable mistakes.
        TypeError: no Accelerator was given or made.
        ValueError: the accelerator refuses the signature, or `expected_failures` has an unknown name.
    """
    made = accelerator if isinstance(accelerator, Accelerator) else accelerator()
    if not isinstance(made, Accelerator):
        raise TypeError(f"accelerator: expected an Accelerator, got {made!r}")
    signature = signature or made.signature or Signature(size=6, coordinates={"map": "specimen"})
    made = made.bind(signature)
    report = accelerator_law.test(type(made).__name__, lambda: AcceleratorCase(made, signature), expected_failures)
    if raise_on_failure:
        report.raise_if_failed()
    return report
