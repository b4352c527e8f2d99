"""An empty place to compare in."""

from __future__ import annotations

from pathlib import Path

import pytest

import fixedpoint as fp
from maps.elastic_net import RandomElasticNet


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and families and packages that ship no settings and no weights yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fp.accelerators, "folders", lambda: [tmp_path / "site"])
    monkeypatch.setattr(
        fp.ProblemFamily, "tuned_file", classmethod(lambda cls: tmp_path / "shipped" / f"{cls.__name__}.json")
    )
    return tmp_path


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The elastic net has a named setting."""
    monkeypatch.setattr(RandomElasticNet, "settings", {"paper": {"beta": 0.25, "step": 1.1}})
