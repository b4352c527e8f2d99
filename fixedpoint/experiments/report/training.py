"""What training cost and what it brought: seconds to an error, and the number of solves that pays for the training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.records import labels
from fixedpoint.experiments.report.style import plain


def milliseconds_to(record: Record, target: str) -> float | None:
    """Milliseconds per instance until the median instance reaches the target error, setup included; None: it does not.

    The time of map and accelerator is taken to be the same for every evaluation.
    """
    reached = record["evaluations_to"][target]["median"]
    if reached is None:
        return None
    spent = record["ms_per_instance"]
    return spent["setup"] + (spent["total"] - spent["setup"]) * reached / record["steps"]


def fastest_classical(records: Sequence[Record], target: str) -> Record | None:
    """Our own row without training that reaches the target in the least time."""
    ours = [r for r in records if not r["peer"] and not r["training"] and r["shift"] is None]
    timed = [(milliseconds_to(r, target), i) for i, r in enumerate(ours)]
    found = min(((ms, i) for ms, i in timed if ms is not None), default=None)
    return None if found is None else ours[found[1]]


def break_even(record: Record, classical: Record | None, target: str) -> float | None:
    """Solves after which training is paid back; inf: never; None: there is nothing to compare."""
    if classical is None:
        return None
    mine, theirs = milliseconds_to(record, target), milliseconds_to(classical, target)
    if mine is None or theirs is None or mine >= theirs:
        return math.inf
    return record["training"]["minutes"] * 60e3 / (theirs - mine)


def table(records: Sequence[Record]) -> Table:
    """A row for each trained accelerator, and the classical row that it is compared with."""
    targets = list(records[0]["evaluations_to"])
    target = next((t for t in targets[1:] if fastest_classical(records, t)), targets[0])
    classical = fastest_classical(records, target)
    shown = plain()
    shown.add_column("training", overflow="fold")
    for heading in ("\nminutes", "\ninstances", f"ms to\n{target}", "\nbreak-even"):
        shown.add_column(heading, justify="right", no_wrap=True)
    named = list(zip(labels(records), records, strict=True))
    for name, record in named:
        if record is classical:
            shown.add_row(f"(fastest classical: {escape(name)})", "", "", _ms(milliseconds_to(record, target)), "")
    for name, record in named:
        if record["training"]:
            solves = break_even(record, classical, target)
            cost = record["training"]
            paid = "-" if solves is None else "never" if math.isinf(solves) else f"{max(1, math.ceil(solves)):,} solves"
            taken = _ms(milliseconds_to(record, target))
            shown.add_row(escape(name), f"{cost['minutes']:.2f}", str(cost["instances"]), taken, paid)
    return shown


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
