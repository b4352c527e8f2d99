"""Comparisons: which rows there are (`plan`), as they should be used (`configuration`), from which files (`places`).

`compare` measures them by the protocol of `fixedpoint.experiments.evaluation`, each on the same held-out instances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fixedpoint.experiments.comparison.configuration import Configured, configure
from fixedpoint.experiments.comparison.places import (
    LOCAL_SETTINGS,
    LOCAL_TRAINING,
    label,
    setting_options,
    settings_file,
    starting_point,
    trained_files,
)
from fixedpoint.experiments.comparison.plan import Row, rows
from fixedpoint.experiments.evaluation import Record, fixed_point_residuals, generator, measure, measure_peer, record
from fixedpoint.plugins.registry import FamilySource, families

__all__ = [
    "CLASSICAL",
    "LOCAL_SETTINGS",
    "LOCAL_TRAINING",
    "Configured",
    "Row",
    "compare",
    "configure",
    "label",
    "rows",
    "setting_options",
    "settings_file",
    "starting_point",
    "trained_files",
]

PEER_HORIZON = 400
"""Iterations that a peer may take to reach the smallest target."""

CLASSICAL = ("picard", "anderson-1", "anderson-2")
"""Accelerators that are compared when none are named."""


def compare(
    family: FamilySource,
    names: Sequence[str],
    *,
    instances: int = 64,
    steps: int = 50,
    seed: int = 0,
    settings: Path | None = None,
    setting: str | None = None,
    shifts: Sequence[str] = (),
    report: Callable[[Row, int, int], None] | None = None,
) -> list[Record]:
    """Measure every row on the same held-out instances.

    Args:
        family: registered name, "FILE.py:NAME", or a family.
        names: registered accelerators, and names of trained ones.
        instances: held-out instances (split "test" of `seed`), the batch of our rows.
        steps: evaluations of our rows; a peer runs on until it reaches 1e-4 or 400 iterations.
        seed: whole number >= 0.
        settings: tuned settings to show beside the defaults; None shows defaults only.
        setting: named setting of the family that every row is run in; None leaves the map to each row's settings.
        shifts: shifted distributions of the family that tuned and trained rows are run on too.
        report: called before each row with (row, index, number of rows).

    Returns:
        One record per row, in the order of `rows`.

    Raises:
        RegistryError, TypeError, ValueError: as `rows`; no names; a size below 1.
    """
    for argument, value in (("instances", instances), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{argument}: expected at least 1, got {value}")
    if not names:
        raise ValueError("names: expected at least one accelerator")
    problems: dict[tuple[str, str | None], Any] = {}
    records = []
    planned = rows(family, names, settings, setting=setting, shifts=shifts)
    for index, row in enumerate(planned):
        if report is not None:
            report(row, index, len(planned))
        bound = row.family
        key = (bound.form, row.shift)
        if key not in problems:
            problems[key] = bound.sample(instances, generator=generator(seed, "test"))
        problem, residuals = problems[key], None
        if row.peer is not None:
            evaluations, errors, spent = measure_peer(row.peer, problem, steps=steps, horizon=max(steps, PEER_HORIZON))
        else:
            assert row.accelerator is not None
            repeats = 3 if row.shift is None else 1  # of shifted rows only the errors are shown
            errors, spent = measure(bound, row.accelerator, problem, steps=steps, repeats=repeats)
            evaluations = np.arange(1, steps + 1)
            if row.shift is None:
                residuals = fixed_point_residuals(bound, row.accelerator, problem, steps)
        identity: Record = {
            "family": families.label(family),
            "form": bound.form,
            "accelerator": row.name,
            "variant": row.variant,
        }
        identity |= {"peer": row.peer is not None, "seed": seed, "steps": steps, "error": bound.error_kind}
        identity |= {"setting": setting, "shift": row.shift, "training": _told(row.training)}
        records.append(record(identity, evaluations, errors, spent, row.options, residuals))
    return records


def _told(training: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a record says of a training: its cost, and what it was trained on."""
    if training is None:
        return None
    plan = training["plan"]
    return {
        "minutes": training["minutes"],
        "instances": plan["instances"],
        "seed": plan["seed"],
        "updates": training["updates"],
    }
