"""The house style of tables: no frame, a line below the head and between sections."""

from __future__ import annotations

from rich import box
from rich.table import Table

# rich's SIMPLE_HEAD, with a line between sections
_LINES = box.Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")


def plain(title: str | None = None) -> Table:
    """An empty table in the house style."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=_LINES,
        show_edge=False,
        collapse_padding=True,
        pad_edge=False,
    )
