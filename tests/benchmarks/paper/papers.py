"""A small problem of the paper's kind, with classical rows."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks.store as shared_store
from benchmarks.paper import anderson, rows, store
from benchmarks.paper.problems import PaperProblem
from benchmarks.paper.rows import Row
from fixedpoint.experiments.evaluation import Record

NET = PaperProblem("elastic-net", "elastic-net", None, 8, (2, 5), "ISTA", ("x",))
CLASSICAL = [
    Row("plain", "plain", "picard"),
    Row("AA-I", "classical", "anderson-1"),
    Row("AA-II", "classical", "anderson-2"),
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classical rows of a small problem; the code does not change while the tests run, whoever edits it."""
    monkeypatch.setattr(shared_store, "source", lambda: "the same")
    monkeypatch.setattr(rows, "planned", lambda problem: CLASSICAL)
    monkeypatch.setattr(anderson, "MEMORIES", (2, 5))
    monkeypatch.setattr(anderson, "STARTS", (0,))
    monkeypatch.setattr(anderson, "INSTANCES", 4)


def everything(folder: Path) -> list[Record]:
    return store.read(folder / store.NAME)
