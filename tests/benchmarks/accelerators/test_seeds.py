"""The table of headline rows over seeds: medians and ranges, of the last run only."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import store
from benchmarks.accelerators import seeds
from tools.train import RECIPES


def test_every_subject_has_a_recipe() -> None:
    for where, accelerator in seeds.SUBJECTS:
        assert "--updates" in RECIPES[where][accelerator]


def test_a_row_is_of_the_last_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "FILE", tmp_path / "records.jsonl")
    assert seeds.report() is None
    (where, accelerator), *_ = seeds.SUBJECTS
    for run, seed, count in (("old", 0, 77.0), ("new", 0, 8.0), ("new", 1, 9.0), ("new", 2, 8.0)):
        counts = {target: [count, None] for target in ("1e-2", "1e-3", "1e-4")}
        identity = {"run": run, "family": where, "accelerator": accelerator, "seed": seed, "minutes": 1.0}
        store.append(seeds.FILE, [{**identity, "evaluations_to": counts}])
    text = io.StringIO()
    Console(width=100, file=text).print(seeds.report())
    assert "8 (8-9) / -" in text.getvalue()
    assert "77" not in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 100


def test_a_run_is_named_by_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = next(iter(seeds.SUBJECTS))
    name = seeds.run_name(subject)
    monkeypatch.setitem(seeds.SUBJECTS, subject, 7)
    assert seeds.run_name(subject) != name
