"""From registered names to plug-ins that can be checked."""

from __future__ import annotations

from dataclasses import replace

import torch

from fixedpoint.checks.checkers import check_map
from fixedpoint.checks.report import CheckResult, Report
from fixedpoint.plugins.registry import families, maps
from fixedpoint.protocol import FixedPointMap, ProblemFamily


def families_of(map_name: str) -> dict[str, ProblemFamily]:
    """The registered families, with default settings, whose map is the registered map `map_name`.

    A family that cannot be loaded is skipped with a warning.

    Raises:
        RegistryError: no such map, or it cannot be loaded.
        TypeError: what is registered is not a subclass of FixedPointMap.
    """
    kind = maps.load(map_name)
    if not (isinstance(kind, type) and issubclass(kind, FixedPointMap)):
        raise TypeError(f"map {map_name!r}: expected a subclass of FixedPointMap, got {kind!r}")
    made: dict[str, ProblemFamily] = {name: family() for name, family in families.available().items()}
    return {name: family for name, family in made.items() if isinstance(family.map, kind)}


def check_registered_map(map_name: str, *, batch: int = 4, seed: int = 0) -> Report:
    """`check_map` on a batch of problems of every registered family of a registered map, in one report.

    A map without any family fails the check "family". Failures are reported, never raised.

    Raises:
        RegistryError, TypeError: as `families_of`.
    """
    found = families_of(map_name)
    results = [CheckResult("family", bool(found), "" if found else "no registered family has problems for this map")]
    for name, family in found.items():
        problem = family.sample(batch, generator=torch.Generator().manual_seed(seed))
        report = check_map(family.map, problem, reference=family.reference(problem), raise_on_failure=False)
        results += [replace(result, name=f"{name}: {result.name}") for result in report.results]
    return Report(map_name, tuple(results))
