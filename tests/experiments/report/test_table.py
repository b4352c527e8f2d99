"""The table of a comparison, from records alone."""

from __future__ import annotations

from typing import Any

import pytest

from fixedpoint.experiments.report import records, table
from tests.experiments.report.rows import full, learned, printed, row


@pytest.mark.parametrize(
    "found",
    [full(), full()[:1], full()[4:], learned(), learned()[2:3]],
    ids=["full", "one-row", "peers-only", "learned", "trained-only"],
)
def test_the_table_fits_and_cuts_nothing(found: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(table.comparison(found), capsys)
    assert max(len(line) for line in text.splitlines()) <= table.WIDTH
    assert "…" not in text
    assert not any(line != line.rstrip() for line in text.splitlines())
    joined = "".join(text.split())
    for one in found:
        assert one["accelerator"].replace(" ", "")[:20] in joined
        for mark, error in one["error_at"].items():
            assert (f"{error['median']:.1e}" in text) or mark == "30", "the one that gives way where there are six"


def test_the_table_says_what_was_reached(capsys: pytest.CaptureFixture[str]) -> None:
    found = [row("picard"), row("far", scale=1e9)]
    found[0]["evaluations_to"]["1e-3"] = {"median": 17.0, "p90": 19.0}
    found[0]["evaluations_to"]["1e-4"] = {"median": 25.0, "p90": None}
    found[1]["error_at"]["60"] = {"median": None, "p90": None}
    lines = printed(table.comparison(found), capsys).splitlines()
    assert lines[0] == "affine: 5 held-out instances, seed 0; error = true KKT error"
    assert lines[2].split() == [*["error"] * 5, *["evaluations"] * 3]
    assert lines[3].split() == [
        "at",
        "5",
        "at",
        "10",
        "at",
        "20",
        "at",
        "50",
        "at",
        "60",
        "to",
        "1e-2",
        "to",
        "1e-3",
        "to",
        "1e-4",
    ]
    assert lines[5].split()[-6:] == ["17", "/", "19", "25", "/", "-"]
    assert lines[6].split()[-7:] == ["-", "not", "reached", "not", "reached", "not", "reached"]
    (time,) = [line for line in lines if line.startswith("picard") and "1234" in line]
    assert time.split() == ["picard", "1.000", "1234.568", "0.000", "1235.600", "5"]


def test_outside_solvers_come_last_below_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = [row("scs", peer=True), row("picard")]
    lines = printed(table.comparison(found), capsys).splitlines()
    assert [line.split()[0].strip("─") for line in lines[5:8]] == ["picard", "", "scs"]
    assert any(line.startswith("Below the line") for line in lines)
    assert "Below the line" not in printed(table.comparison(found[1:]), capsys)


def test_names_tell_variants_and_forms_apart() -> None:
    assert records.labels([row("a"), row("a", "tuned")]) == ["a", "a, tuned"]
    assert records.labels([row("a"), row("a", "tuned", form="conic")]) == ["a (standard)", "a, tuned (conic)"]


def test_names_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert "[red]x" in printed(table.comparison([row("[red]x")]), capsys)


def test_the_table_has_sections_for_what_was_learned(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(table.comparison(learned()), capsys).splitlines()
    assert lines[0] == "affine, setting 'paper': 5 held-out instances, seed 0; error = true KKT error"
    heads = [
        line.split("  ")[0].strip() for line in lines if line.startswith(("ms per", "fixed-point", "training", "Whe"))
    ]
    assert heads == [
        "ms per instance,",
        "fixed-point residual",
        "training",
        "Where nothing was tuned or trained: noise x2",
        "Where nothing was tuned or trained: size x2",
    ]
    rows = [line.partition(" ")[0] for line in lines]
    assert rows.count("picard") == rows.count("anderson-2,") == 5, "three tables, and one for each shift"
    assert rows.count("scs,") == 2, "not among normalised residuals and shifts"
    assert any(line.startswith("Break-even: ") for line in lines)
    plain = printed(table.comparison([row("picard")]), capsys)
    for word in ("Break-even", "training", "tau-normalised", "Where nothing", "setting"):
        assert word not in plain


def test_the_normalised_residuals_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = [row("picard", residuals=True), row("aitken", scale=0.1, residuals=True)]
    found[1]["residual_at"]["60"] = {"median": None, "p90": None}
    lines = printed(table.comparison(found), capsys).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("fixed-point residual"))
    assert lines[start].split()[2:] == [*("at", "5", "at", "10", "at", "20", "at", "50", "at", "60")]
    expected = [f"{found[0]['residual_at'][mark]['median']:.1e}" for mark in ("5", "10", "20", "50", "60")]
    assert lines[start + 2].split() == ["picard", *expected]
    assert lines[start + 3].split()[-1] == "-"
