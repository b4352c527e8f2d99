"""The tables of a comparison, for a terminal of 100 columns: only the names wrap, nothing is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report import training
from fixedpoint.experiments.report.records import labels
from fixedpoint.experiments.report.style import plain

WIDTH = 100
MARKS = 5
"""Columns of errors, so that names keep some room."""
ERROR_NAMES = {"kkt": "true KKT error", "residual": "residual of the map"}

_NEVER = float("inf")


def comparison(records: Sequence[Record]) -> RenderableType:
    """Convergence, time and training of every row, outside solvers below a line; then a table for each shift."""
    first = records[0]
    where = "" if first["setting"] is None else f", setting {first['setting']!r}"
    head = Text(
        f"{first['family']}{where}: {first['instances']} held-out instances, seed {first['seed']}; "
        f"error = {ERROR_NAMES.get(first['error'], first['error'])}\n"
    )
    main = [record for record in records if record["shift"] is None]
    parts: list[RenderableType] = [head, _convergence(main), "", _time(main), ""]
    if any(record["residual_at"] for record in main):
        parts += [_residuals(main), ""]
    if any(record["training"] for record in main):
        parts += [training.table(main), ""]
    for shift in dict.fromkeys(record["shift"] for record in records if record["shift"] is not None):
        moved = [record for record in records if record["shift"] == shift]
        parts += [Text(f"Where nothing was tuned or trained: {shift}\n"), _convergence(moved), ""]
    return Group(*parts, *_notes(records))


def _convergence(records: Sequence[Record]) -> Table:
    first = records[0]
    table = plain()
    table.add_column("", overflow="fold")
    marks, targets = _marks(first["error_at"]), list(first["evaluations_to"])
    for mark in marks:
        table.add_column(f"error\nat {mark}", justify="right", no_wrap=True)
    for target in targets:
        table.add_column(f"evaluations\nto {target}", justify="right", no_wrap=True)
    best = {
        t: min((_order(r["evaluations_to"][t]["median"]) for r in records if not r["peer"]), default=_NEVER)
        for t in targets
    }
    for name, record in _sections(table, records):
        cells = [name] + [_error(record["error_at"].get(mark, {}).get("median")) for mark in marks]
        for target in targets:
            counts = record["evaluations_to"][target]
            text = _counts(counts)
            cells.append(f"[bold]{text}[/bold]" if _order(counts["median"]) == best[target] < _NEVER else text)
        table.add_row(*cells)
    return table


def _marks(found: Mapping[str, Any]) -> list[str]:
    """The evaluations whose errors are shown: where there are too many, not 30."""
    return [mark for mark in found if mark != "30" or len(found) <= MARKS]


def _residuals(records: Sequence[Record]) -> Table:
    """The residual that the neural-acceleration paper plots, of our rows."""
    ours = [record for record in records if record["residual_at"]]
    table = plain()
    table.add_column("tau-normalised\nfixed-point residual", overflow="fold")
    marks = _marks(ours[0]["residual_at"])
    for mark in marks:
        table.add_column(f"\nat {mark}", justify="right", no_wrap=True)
    for name, record in _sections(table, ours):
        table.add_row(name, *[_error(record["residual_at"][mark]["median"]) for mark in marks])
    return table


def _time(records: Sequence[Record]) -> Table:
    table = plain()
    table.add_column(f"ms per instance,\n{records[0]['steps']} evaluations", overflow="fold")
    for part in ("setup", "map", "accelerator", "total", "batch"):
        table.add_column(f"\n{part}", justify="right", no_wrap=True)
    for name, record in _sections(table, records):
        spent = record["ms_per_instance"]
        cells = [f"{spent[part]:.3f}" for part in ("setup", "map", "accelerator", "total")]
        table.add_row(name, *cells, str(record["batch"]))
    return table


def _sections(table: Table, records: Sequence[Record]) -> Iterator[tuple[str, Record]]:
    """(name, record) of our rows, then of the peers; a line is drawn between while the caller adds the rows."""
    for peers in (False, True):
        rows = [(escape(name), r) for name, r in zip(labels(records), records, strict=True) if r["peer"] == peers]
        if peers and rows:
            table.add_section()
        yield from rows


def _notes(records: Sequence[Record]) -> list[Text]:
    notes = ['Evaluations: median / 90th percentile over instances; "-": not reached by that share.']
    if any(record["training"] for record in records):
        notes.append(
            "Break-even: solves after which the minutes of training are paid back, against our fastest classical row "
            "in the table; never: it is no faster."
        )
    if any(record["peer"] for record in records):
        notes.append(
            "Below the line: outside solvers, judged by the same referee; one instance at a time, and on beyond "
            f"{records[0]['steps']} evaluations."
        )
    return [Text(note, style="dim") for note in notes]


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
    """Print for people: at most 100 columns, no trailing blanks."""
    console = Console()
    console = Console(width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
    with console.capture() as captured:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
