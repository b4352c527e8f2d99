"""The speed benchmark: an interrupted run goes on, other runs are never mixed in, tables come from records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import store
from benchmarks.speed import measure, memory, report
from maps.scs import solve
from tests.benchmarks.speed.toys import FAMILY, Recorded, toy

__all__ = ["toy"]

BATCHES, TARGETS = (1, 16), (1e-2, 1e-3)


def run(path: Path, **options: Any) -> None:
    measure.run(path, [FAMILY], BATCHES, TARGETS, **{"rounds": 1, "say": lambda _: None, **options})


def test_a_second_run_measures_nothing_again(toy: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    run(path)
    assert len(store.read(path)) == 2 * len(BATCHES) * len(TARGETS)
    before = path.read_bytes()
    toy.prepared.clear()
    run(path)
    assert toy.prepared == []
    assert path.read_bytes() == before


def test_an_interrupted_run_goes_on_where_it_was(toy: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    run(path)
    path.write_bytes(path.read_bytes()[:-30])  # killed while it wrote the last cell, batch 16 to 1e-3
    assert len(store.read(path)) == 7
    toy.prepared.clear()
    run(path)
    assert toy.prepared == [1e-3]
    assert len(store.latest(store.read(path), FAMILY)) == 8


def test_other_settings_are_another_run(toy: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    run(path)
    other = Recorded(scale=2.0)
    monkeypatch.setattr(measure, "solvers", other)
    measure.run(path, [FAMILY], BATCHES[:1], TARGETS[:1], 1, lambda _: None)
    assert other.prepared == [1e-2]
    shown = store.latest(store.read(path), FAMILY)
    assert [(r["batch"], r["target"]) for r in shown] == [(1, 1e-2)] * 2
    assert shown[0]["settings"]["settings"]["scale"] == 2.0


@pytest.mark.parametrize("what", ["source", "rounds"])
def test_other_code_or_rounds_are_another_run(
    toy: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = tmp_path / "records.jsonl"
    run(path)
    toy.prepared.clear()
    if what == "source":
        monkeypatch.setattr(store, "source", lambda: "edited")
    run(path, rounds=2 if what == "rounds" else 1)
    assert len(toy.prepared) == 4
    assert len({record["run"] for record in store.read(path)}) == 2


def test_the_referee_catches_a_solver_that_lies(toy: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    run(path)
    ours, liar = store.latest(store.read(path), FAMILY)[-2:]
    assert (liar["solver"], liar["claimed"], liar["reached"]) == ("liar", 1.0, 0.0)
    assert liar["error"]["median"] > 0.1
    assert (ours["claimed"], ours["reached"]) == (1.0, 1.0)
    assert ours["error"]["p90"] <= 1e-3
    report.write(path, tmp_path / "ENGINE.md")
    text = (tmp_path / "ENGINE.md").read_text()
    assert "liar default at 16: 0.0%" in text
    assert "fixedpoint picard at" not in text


def test_the_report_is_made_from_records(toy: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results" / "records.jsonl"
    monkeypatch.setattr(measure, "seconds", lambda job: 0.0025)  # of 2 instances one by one, or of 16 at once
    run(path)
    kept = store.read(path)
    page = tmp_path / "ENGINE.md"
    report.write(path, page)
    text = page.read_text()
    assert f"Revision {kept[0]['revision']}; run {kept[0]['run']}" in text
    lines = [line for block in text.split("```")[1::2] for line in block.splitlines()]
    assert any(line.startswith("fixedpoint, picard") and {"1.250", "0.156"} < {*line.split()} for line in lines)
    assert max(map(len, lines)) <= 100
    assert "results/milliseconds.png" in text
    assert (path.parent / report.PICTURE).stat().st_size > 10_000


def test_no_records_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no records"):
        report.write(tmp_path / "records.jsonl", tmp_path / "ENGINE.md")


def test_ratios_are_taken_within_a_round(toy: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter([1.0, 3.0, 10.0, 20.0, 2.0, 8.0])  # ours, theirs, three times; the machine was busy in the second
    monkeypatch.setattr(measure, "seconds", lambda job: next(spent))
    ours, theirs = measure.cell(FAMILY, 16, 1e-2, toy(FAMILY)[0], 3)
    assert ours["times_faster_than_scs"] == {"default": 3.0}
    assert theirs["times_faster_than_scs"] == {"default": 1.0}
    assert ours["ms_per_instance"]["median"] == pytest.approx(2e3 / 16)


def test_many_instances_in_one_call(toy: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = []

    def chunked(program: Any, *given: Any, chunk: int, **options: Any) -> Any:
        chunks.append((program.batch, chunk))
        del options["weights"]  # of the tracks, not of this toy
        return solve(program, *given, chunk=chunk, **options)

    monkeypatch.setattr(memory, "solve", chunked)
    path = tmp_path / "engine" / "records.jsonl"
    for _ in range(2):  # the second finds all it needs
        memory.run(path, (20, 40), 8, lambda _: None)
    assert chunks == [(16, 8), (20, 8), (16, 8), (40, 8)]
    few, many = store.read(path)
    assert (few["instances"], many["instances"], many["reached"]) == (20, 40, 1.0)
    assert many["memory_mib"]["answer"] == 40 * (3 + 6 + 6) * 8 / 2**20
    report.write(path, tmp_path / "ENGINE.md")
    assert "Many instances in one call" in (tmp_path / "ENGINE.md").read_text()


def test_the_source_is_what_a_run_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROOT", tmp_path)
    code = tmp_path / "maps" / "map.py"
    code.parent.mkdir()
    code.write_text("x = 1")
    monkeypatch.setattr(store, "revision", lambda: "abc")
    first = store.source()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "records.jsonl").write_text("{}")
    monkeypatch.setattr(store, "revision", lambda: "abc+")  # the records themselves are in the tree
    assert store.source() == first
    code.write_text("x = 2")
    assert store.source() != first
