"""The table of `fixedpoint list`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from fixedpoint.experiments.report.style import plain
from fixedpoint.plugins.registry import Description


def table(kind: str, plugins: Sequence[Description], *, home: str) -> RenderableType:
    """What each plug-in is, takes and needs; where it comes from, unless that is the distribution `home`."""
    needy = any(plugin.needs for plugin in plugins)
    shown = plain(kind)
    shown.add_column("name", no_wrap=True)
    shown.add_column("what it is", ratio=3)
    shown.add_column("options (default)", ratio=2)
    if needy:
        shown.add_column("needs")
    for plugin in plugins:
        what = Text(plugin.summary, style="red" if plugin.broken else "")
        if plugin.distribution != home:
            what.append(f" [from {plugin.distribution}]", style="dim")
        needs = Text(", ").join(
            Text(module) if installed else Text(f"{module} (missing)", style="red")
            for module, installed in plugin.needs.items()
        )
        shown.add_row(plugin.name, what, Text(plugin.options), *([needs] if needy else []))
    return Group(shown, "")
