"""Records on disk, and the list of plug-ins."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fixedpoint.experiments.report import plugins, records, table
from fixedpoint.plugins.registry import Description
from tests import support
from tests.experiments.report.rows import full, printed, row

# -- the list of plug-ins


def test_the_list_shows_origin_needs_and_breakage(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        Description("fine", "What it is.", "size (3)", "home", {"torch": True, "cvxpy": False}),
        Description("foreign", "From elsewhere [x].", "none", "other-dist", {}),
        Description("hopeless", "BROKEN: no luck", "", "home", {}, broken=True),
    ]
    text = printed(plugins.table("maps", found, home="home"), capsys)
    lines = text.splitlines()
    assert lines[0] == "maps"
    assert lines[1].split() == ["name", "what", "it", "is", "options", "(default)", "needs"]
    assert lines[3].split() == ["fine", "What", "it", "is.", "size", "(3)", "torch,", "cvxpy", "(missing)"]
    assert "From elsewhere [x]. [from other-dist]" in text
    assert "BROKEN: no luck" in text
    assert "needs" not in printed(plugins.table("maps", found[1:], home="home"), capsys)


# -- records on disk


def test_records_survive_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records.write(tmp_path / "new", full())
    assert [p.name for p in path.parent.iterdir()] == [records.NAME]
    found = records.read(path.parent)
    assert found == full()
    assert printed(table.comparison(found), capsys) == printed(table.comparison(full()), capsys)


def test_a_failure_while_writing_keeps_the_old_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(tmp_path, full()[:1])
    with pytest.raises(ValueError, match="JSON"):
        records.write(tmp_path, [{**row(), "seed": math.nan}])
    support.fill_disk(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        records.write(tmp_path, full())
    assert records.read(tmp_path) == full()[:1]
    assert [p.name for p in tmp_path.iterdir()] == [records.NAME]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no records"),
        (json.dumps(row()) + "\n{", "line 2: not JSON"),
        ("3", "line 1: not JSON"),
        (json.dumps({k: v for k, v in row().items() if k != "residual_at"}), "line 1: .*, residual_at missing"),
        (json.dumps({k: v for k, v in row().items() if k != "shift"}), "line 1: not a result record, shift missing"),
        ('{"family": "affine"}', "line 1: not a result record, form, setting, accelerator, .*, curve missing"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / records.NAME).write_text(text)
    with pytest.raises(ValueError, match=message):
        records.read(tmp_path)


def test_records_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"records\.jsonl: no such file; `fixedpoint compare"):
        records.read(tmp_path)
