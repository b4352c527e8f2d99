"""Tables as the pages show them, and the line below them that says where their records come from."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, RenderableType

from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.table import WIDTH


def block(renderable: RenderableType) -> str:
    """A table as Markdown shows it unchanged, at most 100 columns wide."""
    text = io.StringIO()
    Console(width=WIDTH, file=text).print(renderable)
    lines = "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())
    return f"```\n{lines}\n```"


def origin(records: Sequence[Record]) -> str:
    """Where a table's records come from."""
    last = records[-1]
    versions = ", ".join(f"{package} {version}" for package, version in last["versions"].items())
    counts: dict[str, set[int]] = {}
    for record in records:
        who = "scs" if record.get("peer") else "ours"
        counts.setdefault(who, set()).add(record["instances"] if "instances" in record else record["batch"])
    numbers = ", ".join(f"{who} {'/'.join(map(str, sorted(found)))}" for who, found in counts.items())
    machine = f"{last['cpu']}, torch with {last['torch_threads']} threads"
    return f"Instances: {numbers}. Revision {last['revision']}; run {last['run']}; {machine}; {versions}."
