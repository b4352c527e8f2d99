"""Records of the paper's experiments: runs that are whole, and never a mixture of two.

Appending, reading and the name of a run are those of `benchmarks.store`. A run begins with a
record of part "plan" that lists the keys of all that belong to it; it is whole once each of them is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import store
from benchmarks.store import append, read
from fixedpoint.experiments.evaluation import Record

__all__ = ["NAME", "TRAINING", "append", "key", "known", "provenance", "read", "unfinished", "whole"]

NAME, TRAINING = "records.jsonl", "training.jsonl"
_MEASURING = ("problems.py", "quantities.py", "anderson.py", "rows.py", "measure.py")
"""Files of this folder that numbers depend on; those that draw and write may change without measuring again."""


def key(record: Record) -> str:
    """What a record holds, within its run."""
    return f"{record['part']}: {record['row']}"


def provenance(content: Mapping[str, Any]) -> Record:
    """As `benchmarks.store.provenance`, for the code of this folder that measures."""
    here = Path(__file__).parent
    code = hashlib.sha256(b"".join((here / name).read_bytes() for name in _MEASURING)).hexdigest()
    return store.provenance({**content, "code": code})


def known(records: Sequence[Record], run: str) -> dict[str, Record]:
    """What was recorded of a run, by key, the plan apart."""
    return {key(record): record for record in records if record["run"] == run and record["part"] != "plan"}


def whole(records: Sequence[Record]) -> list[Record]:
    """The records of the last run that is whole, in the order of its plan; none when there is no such run."""
    for plan in reversed([record for record in records if record["part"] == "plan"]):
        found = known(records, plan["run"])
        if all(name in found for name in plan["keys"]):
            return [found[name] for name in plan["keys"]]
    return []


def unfinished(records: Sequence[Record]) -> tuple[int, int] | None:
    """(records there, records planned) of the newest run if it is not whole, else None."""
    plans = [record for record in records if record["part"] == "plan"]
    if not plans:
        return None
    there = sum(name in known(records, plans[-1]["run"]) for name in plans[-1]["keys"])
    return None if there == len(plans[-1]["keys"]) else (there, len(plans[-1]["keys"]))
