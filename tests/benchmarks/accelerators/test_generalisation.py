"""The table over seeds: medians and ranges, of one run only."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import store
from benchmarks.accelerators import generalisation


def row(run: str, instances: int | None, seed: int | None, counts: list[float | None]) -> dict[str, Any]:
    name = "anderson-2, tuned" if instances is None else generalisation.ACCELERATOR
    reached = {target: counts for target in ("1e-2", "1e-3", "1e-4")}
    return {
        "run": run,
        "accelerator": name,
        "instances": instances,
        "seed": seed,
        "minutes": 1.0,
        "evaluations_to": reached,
    }


def shown() -> str:
    text = io.StringIO()
    Console(width=100, file=text).print(generalisation.report())
    return text.getvalue()


def test_a_run_is_shown_by_medians_and_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generalisation, "FILE", tmp_path / "records.jsonl")
    assert generalisation.report() is None
    store.append(generalisation.FILE, [row("old", 32, 0, [77.0, 78.0])])
    store.append(generalisation.FILE, [row("new", None, None, [19.0, 23.0])])
    store.append(generalisation.FILE, [row("new", 32, seed, [14.0 + seed, None]) for seed in range(3)])
    text = shown()
    assert "15 (14-16) / -" in text
    assert "19 / 23" in text
    assert "77" not in text, "of an older run"
    assert max(map(len, text.splitlines())) <= 100


def test_a_run_is_named_by_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    name = generalisation.run_name()
    assert generalisation.run_name() == name
    monkeypatch.setitem(generalisation.PLAN, "updates", 7)
    assert generalisation.run_name() != name
