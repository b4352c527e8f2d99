"""Result records on disk: `records.jsonl`, one JSON object per row of a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fixedpoint import files
from fixedpoint.experiments.evaluation import Record

NAME = "records.jsonl"
_IDENTITY = (
    "family",
    "form",
    "setting",
    "accelerator",
    "variant",
    "peer",
    "seed",
    "steps",
    "error",
    "shift",
    "training",
)
_NEEDED = (*_IDENTITY, "instances", "error_at", "residual_at", "evaluations_to", "ms_per_instance", "batch", "curve")


def write(folder: Path, records: Sequence[Record]) -> Path:
    """Write the records of one comparison, whole or not at all; returns the file.

    Raises:
        OSError: the folder cannot be written; ValueError: a number that JSON does not have.
    """
    path = folder / NAME
    files.write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))
    return path


def read(folder: Path) -> list[Record]:
    """Read the records of one comparison.

    Raises:
        ValueError: no such file, a line that is not a record, or no records at all; the message names the line.
    """
    path = folder / NAME
    if not path.is_file():
        raise ValueError(f"{path}: no such file; `fixedpoint compare FAMILY --out {folder}` makes it")
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
            missing = [key for key in _NEEDED if key not in record]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
        if missing:
            raise ValueError(f"{path}, line {number}: not a result record, {', '.join(missing)} missing")
        records.append(record)
    if not records:
        raise ValueError(f"{path}: no records")
    return records


def labels(records: Sequence[Record]) -> list[str]:
    """The rows' names for people; spaces let them wrap between parts."""
    several = len({record["form"] for record in records}) > 1
    return [
        record["accelerator"].replace("+", " + ")
        + (", tuned" if record["variant"] == "tuned" else "")
        + (f" ({record['form']})" if several else "")
        for record in records
    ]
