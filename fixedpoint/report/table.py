"""The tables of a comparison, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fixedpoint.evaluation import Record
from fixedpoint.report.records import label

WIDTH = 100

_ERROR_NAMES = {"kkt": "true KKT error", "residual": "residual of the map"}


def comparison(records: Sequence[Record]) -> RenderableType:
    """Convergence and time of every row."""
    first = records[0]
    head = Text(
        f"{first['family']}: {first['instances']} held-out instances, seed {first['seed']}; "
        f"error = {_ERROR_NAMES.get(first['error'], first['error'])}"
    )
    return Group(head, _convergence(records), _time(records), *_notes(records))


def _convergence(records: Sequence[Record]) -> Table:
    first = records[0]
    forms = len({record["form"] for record in records}) > 1
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    if forms:
        table.add_column("form")
    marks, targets = list(first["error_at"]), list(first["evaluations_to"])
    for mark in marks:
        table.add_column(f"error at {mark}", justify="right", max_width=8)
    for target in targets:
        table.add_column(f"evaluations to {target}", justify="right", max_width=11)
    best = {t: min(_order(r["evaluations_to"][t]["median"]) for r in records if not r["peer"]) for t in targets}
    for record in records:
        cells = [label(record)] + ([record["form"]] if forms else [])
        cells += [_error(record["error_at"].get(mark, {}).get("median")) for mark in marks]
        for target in targets:
            counts = record["evaluations_to"][target]
            text = _counts(counts)
            cells.append(f"[bold]{text}[/bold]" if _order(counts["median"]) == best[target] < _NEVER else text)
        table.add_row(*cells, style="dim" if record["peer"] else None)
    return table


def _time(records: Sequence[Record]) -> Table:
    steps = records[0]["steps"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(f"ms per instance, {steps} evaluations", no_wrap=True)
    for part in ("setup", "map", "accelerator", "total", "batch"):
        table.add_column(part, justify="right")
    for record in records:
        spent = record["ms_per_instance"]
        cells = [f"{spent[part]:.3g}" for part in ("setup", "map", "accelerator", "total")]
        table.add_row(label(record), *cells, str(record["batch"]), style="dim" if record["peer"] else None)
    return table


def _notes(records: Sequence[Record]) -> list[Text]:
    notes = ["Evaluations: median / 90th percentile over instances; - : not reached by that share."]
    if any(record["peer"] for record in records):
        notes.append("Outside solvers (dim) run one instance at a time, to 400 iterations; judged by the same referee.")
    return [Text(note, style="dim") for note in notes]


_NEVER = float("inf")


def _order(value: float | None) -> float:
    return _NEVER if value is None else value


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _counts(counts: dict[str, Any]) -> str:
    if counts["median"] is None:
        return "not reached"
    tail = "-" if counts["p90"] is None else f"{counts['p90']:.0f}"
    return f"{counts['median']:.0f} / {tail}"


def show(renderable: RenderableType) -> None:
    """Print for people: at most 100 columns."""
    console = Console()
    width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    Console(width=width).print(renderable)
