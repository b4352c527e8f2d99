"""The size benchmark: one trained accelerator on maps of several sizes, its rows, and the table made from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

import fixedpoint as fp
from benchmarks.accelerators import sizes
from fixedpoint.experiments.comparison import compare
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report import records
from fixedpoint.experiments.report.table import WIDTH

SIZES = (6, 9)


@pytest.fixture(scope="module")
def rows() -> list[Record]:
    return list(sizes.measured(SIZES, instances=3, steps=12))


def test_every_size_has_its_rows_in_the_settings_of_the_training(rows: list[Record]) -> None:
    assert [(row["variables"], row["accelerator"]) for row in rows] == [
        (size, name) for size in SIZES for name in ("picard", "anderson-2", sizes.TRAINED)
    ]
    trained = fp.load(compare.trained_files(sizes.FAMILY)[sizes.TRAINED])
    assert trained.provenance is not None
    for row in rows:
        told = dict(row["settings"]["family"])
        assert (told.pop("variables"), told.pop("samples")) == (row["variables"], 2 * row["variables"])
        assert told == trained.provenance["family"]["options"]
        assert row["instances"] == 3
    assert [row["training"] is not None for row in rows] == [False, False, True] * len(SIZES)
    assert rows[2]["curve"] != rows[0]["curve"]
    assert rows[2]["curve"] != rows[1]["curve"]


def test_the_table_is_made_from_records_alone(rows: list[Record], tmp_path: Path) -> None:
    records.write(tmp_path, rows)
    console = Console(width=WIDTH)
    with console.capture() as captured:
        console.print(sizes.table(records.read(tmp_path)))
    lines = captured.get().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    shown = [line.split()[0] for line in lines if line.split() and line.split()[0].isdigit()]
    assert shown == [str(size) for size in SIZES], "each size is named once"
    assert sum(sizes.TRAINED in line for line in lines) == len(SIZES)


def test_the_shipped_weights_are_size_free_and_tiny() -> None:
    path = compare.trained_files(sizes.FAMILY)[sizes.TRAINED]
    assert path.stat().st_size < 50_000
    served = fp.load(path).bind(
        fp.families.create(sizes.FAMILY, variables=9, samples=18, **_options(path)).map.signature
    )
    assert served.signature is not None
    assert served.signature.size == 401, "that of the training"


def _options(path: Path) -> dict[str, object]:
    told = fp.load(path).provenance
    assert told is not None
    return dict(told["family"]["options"])
