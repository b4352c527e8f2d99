"""Records on disk: appended as they are made, one JSON object a line; what belongs to one run has one name for it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fixedpoint.experiments.evaluation import Record, revision, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
"""Where all records are."""
PACKAGES = ("fixedpoint-acceleration", "torch", "numpy", "scipy", "scs", "cvxpy")
"""Whose versions numbers depend on."""
_SOURCES = ("fixedpoint", "maps", "accelerators", "benchmarks/speed")
_HARNESS = ("benchmarks/store.py", "benchmarks/machine.py")


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records in one write, after which they are on the disk. A line that was cut short before them stays alone.

    Raises:
        OSError: the file cannot be written; ValueError: a number that JSON does not have.
    """
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, ("\n" if torn else "").encode() + lines.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> list[Record]:
    """All records, oldest first, without lines that were cut short; none where there is no file."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def run_name(content: Mapping[str, Any]) -> str:
    """A name for measurements that may stand in one table: the same source, and the same of everything in `content`."""
    text = json.dumps({**content, "source": source()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def provenance(content: Mapping[str, Any], **also: Any) -> Record:
    """The fields that tell where a record comes from.

    Args:
        content: settings, weights and whatever else decides the numbers, JSON-able.
        also: more of it, which the record shows.

    Returns:
        "run" names all that may stand in one table: the same code, settings, weights, versions and machine.
    """
    shown = {"versions": versions(PACKAGES), **also, "cpu": cpu()}
    return {"run": run_name({**content, **shown}), "revision": revision(), **shown}


def source() -> str:
    """Digest of the code, its settings files and the commit.

    The commit's mark for changes does not count: the records themselves are in the tree, and change it.
    """
    digest = hashlib.sha256((revision() or "").removesuffix("+").encode())
    for folder in _SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".json", ".cpp") and "results" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    for path in (ROOT / name for name in _HARNESS):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def latest(records: Sequence[Record], family: str, part: str = "speed") -> list[Record]:
    """The records of a family's last run, each row's last one; those of other runs are left out."""
    mine = [record for record in records if (record["family"], record["part"]) == (family, part)]
    rows = {}
    for record in mine:
        if record["run"] == mine[-1]["run"]:
            rows[key(record)] = record
    return list(rows.values())


def key(record: Record) -> tuple[Any, ...]:
    """What a record measures, within its run."""
    return tuple(record.get(name) for name in ("family", "batch", "target", "solver", "variant", "instances"))


def cpu() -> str:
    """The processor's name and how many of its cores are ours."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0] if names else 'unknown'}, {len(os.sched_getaffinity(0))} cores"


def text_of(target: float) -> str:
    """A target as tables show it: 1e-3."""
    return f"{target:.0e}".replace("e-0", "e-")
