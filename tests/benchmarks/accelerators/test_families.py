"""The report of all families: from records on disk, with what did not work as its last section."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import store
from benchmarks.accelerators import families, generalisation, seeds, sizes


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the report goes; there are no records."""
    monkeypatch.setattr(families, "PAGE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    for module in (generalisation, seeds, sizes):
        monkeypatch.setattr(module, "report", lambda: None)
    return tmp_path / "RESULTS.md"


def test_the_report_ends_with_what_did_not_work(page: Path) -> None:
    families.report()
    *_, last = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    title, _, body = last.partition("\n\n")
    assert title == "What did not work"
    assert body == families.FAILURES.read_text(), "whole, as it was written"
    bullets = re.findall(r"^- \*\*(.+?)\.\*\* ", body, flags=re.MULTILINE)
    assert len(bullets) == len(set(bullets)) == body.count("\n- ") >= 7, "each attempt is named, once"


def test_the_shipped_report_has_it_too() -> None:
    assert families.PAGE.read_text().endswith(families.FAILURES.read_text())


@pytest.mark.parametrize("arguments", [["report"], ["report", "lasso"], ["laso"]])
def test_the_report_alone_measures_nothing(page: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    def compare(*given: Any, **options: Any) -> Any:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(families.compare, "compare", compare)
    monkeypatch.setattr(sys, "argv", ["families", *arguments])
    if arguments == ["report"]:
        families.main()
        assert page.exists()
    else:
        with pytest.raises(SystemExit, match=r"no runs for (report|laso); there are lasso\.paper"):
            families.main()
