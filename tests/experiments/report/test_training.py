"""What training is worth."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fixedpoint.experiments.report import training
from tests.experiments.report.rows import COST, printed, row


def timed(
    name: str, reached: float | None, *, setup: float = 1.0, per: float = 0.1, minutes: float | None = None
) -> dict[str, Any]:
    """A row of 60 evaluations that takes `setup + 60 per` milliseconds and is at 1e-3 after `reached` evaluations."""
    cost = None if minutes is None else {**COST, "minutes": minutes}
    one = row(name, "default" if minutes is None else "trained", training=cost)
    one["ms_per_instance"] = {"setup": setup, "map": 50 * per, "accelerator": 10 * per, "total": setup + 60 * per}
    one["evaluations_to"] = {"1e-2": {"median": 1.0, "p90": 1.0}, "1e-3": {"median": reached, "p90": None}}
    return one


def test_time_to_an_error_counts_the_setup_once() -> None:
    assert training.milliseconds_to(timed("a", 30, setup=2.0, per=0.1), "1e-3") == pytest.approx(2 + 30 * 0.1)
    assert training.milliseconds_to(timed("a", None), "1e-3") is None


def test_the_fastest_classical_row_is_ours_untrained_and_unshifted() -> None:
    best = timed("momentum", 20, per=0.3)
    others = [
        timed("picard", 60, per=0.2),
        {**timed("wheel", 1), "peer": True},
        timed("gru", 1, minutes=3.0),
        {**timed("anderson-2", 1), "shift": "noise"},
        timed("lost", None),
    ]
    assert training.fastest_classical([*others, best], "1e-3") is best
    assert training.fastest_classical(others[1:], "1e-3") is None


def test_training_is_paid_back_by_the_time_it_saves() -> None:
    trained, classical = timed("gru", 10, minutes=2.0), timed("picard", 40)
    assert training.break_even(trained, classical, "1e-3") == pytest.approx(2 * 60_000 / 3.0)
    for slower in (timed("gru", 40, minutes=2.0), timed("gru", 50, minutes=2.0), timed("gru", None, minutes=2.0)):
        assert training.break_even(slower, classical, "1e-3") == math.inf
    assert training.break_even(trained, None, "1e-3") is None


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([timed("picard", 40), timed("gru", 10, minutes=2.0)], ["to 1e-3", "picard 5.000", "2.00 500 2.000 40,000"]),
        ([timed("picard", 40), timed("gru", 10, minutes=0.0)], ["to 1e-3", "0.00 500 2.000 1 solves"]),
        ([timed("picard", 40), timed("gru", 41, minutes=2.0)], ["to 1e-3", "2.00 500 5.100 never"]),
        ([timed("picard", 40), timed("gru", None, minutes=2.0)], ["to 1e-3", "2.00 500 - never"]),
        ([timed("picard", None), timed("gru", 1, minutes=2.0)], ["to 1e-2", "picard 1.100", "2.00 500 1.100 never"]),
        ([timed("gru", 10, minutes=2.0)], ["to 1e-2", "2.00 500 1.100 -"]),
    ],
    ids=["reached", "at-once", "slower", "not-reached", "easier-target", "no-classical"],
)
def test_the_table_of_training_says_when_it_pays(
    rows: list[dict[str, Any]], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(printed(training.table(rows), capsys).replace(")", "").split()).replace("ms to", "to")
    head, _, body = text.partition("─")
    assert head.split()[-1] == "break-even"
    assert shown[0].split()[1] in head
    for words in shown[1:]:
        assert words in body
    assert ("fastest classical" in body) == any(not one["training"] for one in rows)
