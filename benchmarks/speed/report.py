"""`ENGINE.md`: tables and a picture, from records alone. Each family's table has the rows of one run only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from benchmarks import store
from benchmarks.speed import floor, picture
from benchmarks.tables import block, origin
from fixedpoint import files
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.style import plain

PAGE = store.RESULTS.parent / "ENGINE.md"
PICTURE = "milliseconds.png"
_DEFAULT, _TUNED, _ORACLE = "default", "tuned", "tuned, oracle"
_HEAD = """# What an instance costs

Made by `python -m benchmarks.speed report` from the records in `results/`; how they are made is in
`benchmarks/speed/__init__.py` and `benchmarks/speed/floor.py`.

Milliseconds per instance, setup included, until the true KKT error in the original data is at most the target: held-out
instances, medians over interleaved rounds, every returned instance checked by the same referee. Ours solves a batch in
one call (batch 1: one call for each of 16 instances); scs solves one instance at a time, with two threads from batch 2
on, on the first instances of ours (their number is in the records). Its solver is QDLDL, which here is at least
as fast as what it would choose (MKL). "Tuned" is as hard as ours was: a random search over its settings, its
acceleration and the form of the program on training instances, and the factorization is kept where a batch shares one.
"Oracle": scs looks at its residuals every 25 iterations; here it is told beforehand at which iteration each instance
meets the target, which no solver can know (with a kept factorization only where scs forgets the instance before: not
with its acceleration). "x scs ...": how many times faster a row is than that one, in the same round."""


def write(records: Path, page: Path = PAGE) -> None:
    """Write the page and its picture.

    Raises:
        ValueError: there are no records.
    """
    found = store.read(records)
    if not found:
        raise ValueError(f"{records}: no records; `python -m benchmarks.speed run` makes them")
    parts = [_HEAD]
    runs = {}
    for family in dict.fromkeys(record["family"] for record in found if record["part"] == "speed"):
        runs[family] = store.latest(found, family)
        parts += [f"## {family}", *(block(table) for table in speed(runs[family])), origin(runs[family])]
    if runs:
        drawn = records.parent / PICTURE
        picture.draw(list(runs.values()), drawn)
        where = _relative(drawn, page)
        parts.append(f"![milliseconds per instance against the batch size]({where})")
    for family in dict.fromkeys(record["family"] for record in found if record["part"] == "memory"):
        rows = store.latest(found, family, "memory")
        parts += [f"## Many instances in one call: {family}", block(memory(rows)), origin(rows)]
    parts += floor.section(records.parents[1] / "floor" / records.name)
    files.write_text(page, "\n\n".join(parts) + "\n")


def speed(records: Sequence[Record]) -> list[Table]:
    """A table for each target, then where our time and memory go."""
    batches = sorted({record["batch"] for record in records})
    tables = []
    for target in sorted({record["target"] for record in records}, reverse=True):
        mine = [record for record in records if record["target"] == target]
        table = plain(f"to {store.text_of(target)}")
        table.add_column("ms per instance\nat batch", no_wrap=True)
        for batch in batches:
            table.add_column(f"\n{batch}", justify="right", no_wrap=True)
        last = batches[-1]
        for variant in (_DEFAULT, _TUNED, _ORACLE):
            table.add_column(f"x scs {variant}\nat {batches[0]} / {last}", justify="right", min_width=9)
        table.add_column(f"evaluations\nat {last}", justify="right", no_wrap=True)
        for peer in (False, True):
            rows = [record for record in mine if record["peer"] == peer]
            if peer:
                table.add_section()
            for name in dict.fromkeys((record["solver"], record["variant"]) for record in rows):
                at = {r["batch"]: r for r in rows if (r["solver"], r["variant"]) == name}
                cells = [_cell(at.get(batch)) for batch in batches]
                ratios = [
                    f"{_ratio(at.get(batches[0]), v)} / {_ratio(at.get(last), v)}" for v in (_DEFAULT, _TUNED, _ORACLE)
                ]
                table.add_row(", ".join(name), *cells, *ratios, _evaluations(at.get(last)))
        short = [record for record in mine if record["reached"] < 1]
        if short:
            table.caption = "! not all instances met the target: " + "; ".join(
                f"{r['solver']} {r['variant']} at {r['batch']}: {100 * r['reached']:.1f}%" for r in short
            )
            table.caption_justify = "left"
        tables.append(table)
    return [*tables, where(records)]


def where(records: Sequence[Record]) -> Table:
    """Setup and iteration of our rows, and the memory that a call adds at its peak."""
    table = plain("where ours goes")
    table.add_column("\nrow", no_wrap=True)
    for head in ("\nbatch", "\nto", "setup\nms", "iteration\nms", "peak memory\nMiB", "of it before\nMiB"):
        table.add_column(head, justify="right", no_wrap=True)
    ours = [record for record in records if not record["peer"]]
    last = max(record["batch"] for record in ours)
    for record in ours:
        if record["batch"] in (1, last):
            spent, memory = record["split_ms_per_instance"], record["memory_mib"]
            cells = (f"{spent['setup']:.3f}", f"{spent['iterate']:.3f}", f"{memory['peak']:.0f}")
            numbers = (str(record["batch"]), store.text_of(record["target"]), *cells, f"{memory['before']:.0f}")
            table.add_row(record["variant"], *numbers)
    return table


def memory(records: Sequence[Record]) -> Table:
    """Peak memory against the number of instances."""
    table = plain()
    heads = (
        "instances",
        "at a time",
        "to",
        "ms per instance",
        "reached",
        "memory before, MiB",
        "added at the peak, MiB",
    )
    for head in heads:
        table.add_column(head.replace(", ", "\n"), justify="right")
    for record in sorted(records, key=lambda r: (r["chunk"] or 0, r["instances"])):
        before, top = record["memory_mib"]["before"], record["memory_mib"]["peak"]
        table.add_row(
            str(record["instances"]),
            str(record["chunk"]),
            store.text_of(record["target"]),
            f"{record['ms_per_instance']['median']:.4f}",
            f"{100 * record['reached']:.2f}%",
            f"{before:.0f}",
            f"{top - before:.0f}",
            f"{record['memory_mib']['answer']:.0f}",
        )
    return table


def _relative(path: Path, page: Path) -> str:
    """`path` as a link from `page`."""
    path, folder = path.resolve(), page.parent.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _cell(record: Record | None) -> str:
    if record is None:
        return "-"
    value = record["ms_per_instance"]["median"]
    digits = 3 if value < 9.9995 else 1
    return f"{value:.{digits}f}" + ("!" if record["reached"] < 1 else "")


def _ratio(record: Record | None, variant: str) -> str:
    value = None if record is None else record["times_faster_than_scs"].get(variant)
    return "-" if value is None else f"{value:.{2 if value < 0.995 else 1 if value < 9.95 else 0}f}"


def _evaluations(record: Record | None) -> str:
    if record is None:
        return "-"
    return " / ".join(f"{record['evaluations'][q]:.0f}" for q in ("median", "p90"))
