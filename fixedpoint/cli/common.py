"""Options that several commands share, and the progress bar."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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


class FamilyError(Exception):
    """What went wrong in a family of a user's file; the message names both."""


def names_family(command: Callable[..., None]) -> Callable[..., None]:
    """A command on a family, whose errors from within a user's file, or from sampling, name file and family."""

    @functools.wraps(command)
    def run(family: str, **options: Any) -> None:
        from fixedpoint.plugins.user_file import in_file, traced

        try:
            command(family=family, **options)
        except Exception as error:
            if not in_file(family) or f"family {family}:" in str(error):
                raise
            line = traced(family, error)
            if line is None and not _sampling(error):
                raise
            plain = line is None and isinstance(error, TypeError | ValueError)
            what = str(error) if plain else f"{type(error).__name__}: {error}"
            where = "" if line is None else f" (line {line})"
            raise FamilyError(f"family {family}: {what}{where}") from error

    return run


def _sampling(error: BaseException) -> bool:
    """Whether an error came out of the `sample` of a family."""
    from fixedpoint.protocol import ProblemFamily

    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "sample" and isinstance(frame.f_locals.get("self"), ProblemFamily):
            return True
        trace = trace.tb_next
    return False


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
