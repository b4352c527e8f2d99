"""Options that several commands share, and the progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Family = Annotated[
    str,
    typer.Argument(
        help="A registered family of problems (see `fixedpoint list`), or FILE.py:NAME, a family in a file of yours."
    ),
]
Seed = Annotated[
    int, typer.Option(help="Seed of the instances; training, tuning and comparing never share an instance.", min=0)
]
Setting = Annotated[
    str | None, typer.Option(help="Named setting of the family, such as 'paper'; then the map's settings are given.")
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(help="File of tuned settings. By default the family's file in ./fixedpoint-settings, else its own."),
]


def names(text: str, what: str = "accelerators") -> list[str]:
    """Names separated by commas, each once.

    Raises:
        ValueError: there is none.
    """
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise ValueError(f"{what}: expected at least one name")
    return found


def bar() -> Progress:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
