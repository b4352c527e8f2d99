"""Tables, the plot and the files, from records alone."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import fixedpoint as fp
from fixedpoint.evaluation import record
from fixedpoint.registry import Description
from fixedpoint.report import plot, plugins, records, solutions, table, training
from tests import support

LONG = "a-learned-warm-start-with-a-long-name+anderson-2"


def row(
    name: str = "picard",
    variant: str = "default",
    *,
    peer: bool = False,
    form: str = "standard",
    scale: float = 1.0,
    setting: str | None = None,
    shift: str | None = None,
    training: dict[str, Any] | None = None,
    residuals: bool = False,
) -> dict[str, Any]:
    """A record of 60 evaluations of 5 instances; the error falls by 0.8 per evaluation, `scale` times."""
    identity = {"family": "affine", "form": form, "accelerator": name, "variant": variant, "peer": peer}
    identity |= {"setting": setting, "shift": shift, "training": training}
    errors = scale * np.outer(0.8 ** np.arange(60), np.arange(1, 6))
    spent = {"setup": 1.0, "map": 1234.5678, "accelerator": 0.00012, "total": 1235.6}
    identity |= {"seed": 0, "steps": 60, "error": "kkt"}
    return record(identity, np.arange(1, 61), errors, spent, {}, 3 * errors if residuals else None)


COST = {"minutes": 12.5, "instances": 500, "seed": 0, "updates": 1000}


def full() -> list[dict[str, Any]]:
    """A classical comparison."""
    return [
        row("picard"),
        row(LONG, form="conic", scale=1e9),
        row("anderson-2", scale=0.1),
        row("anderson-2", "tuned", scale=0.01),
        row("scs, its defaults", peer=True),
        row("scs, our settings", peer=True),
    ]


def learned() -> list[dict[str, Any]]:
    """A comparison with everything in it: trained rows, shifted rows, a named setting, normalised residuals."""
    found = [
        row("picard", residuals=True, setting="paper"),
        row("anderson-2", "tuned", scale=0.1, residuals=True, setting="paper"),
        row(LONG, "trained", scale=0.01, residuals=True, setting="paper", training=COST),
        row("scs, its defaults", peer=True, setting="paper"),
    ]
    moved = [{**one, "shift": shift} for shift in ("noise x2", "size x2") for one in found if not one["peer"]]
    return found + moved


def printed(renderable: Any, capsys: pytest.CaptureFixture[str]) -> str:
    table.show(renderable)
    return capsys.readouterr().out


# -- the table


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


# -- what training is worth


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


# -- the plot


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, in order."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **{**kwargs, "dpi": 20})

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_the_plot_shows_every_row(tmp_path: Path, drawn: list[Figure]) -> None:
    plot.convergence(full(), tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    expected = {
        "picard (standard)": (plot.COLOURS[0], "-"),
        f"{LONG.replace('+', ' + ')} (conic)": (plot.COLOURS[1], "-"),
        "anderson-2 (standard)": (plot.COLOURS[2], "--"),
        "anderson-2, tuned (standard)": (plot.COLOURS[2], "-"),
        "scs, its defaults (standard)": (plot.GREYS[0], ":"),
        "scs, our settings (standard)": (plot.GREYS[1], ":"),
    }
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(expected)
    overview = figure.axes[0]
    assert {line.get_label(): (line.get_color(), line.get_linestyle()) for line in overview.lines} == expected
    assert np.asarray(overview.lines[0].get_ydata()).tolist() == row()["curve"]["median"]
    assert overview.lines[0].get_xydata().shape == (len(row()["curve"]["evaluations"]), 2)
    assert figure.get_supylabel() == "true KKT error"


def test_each_accelerator_has_its_median_and_band(tmp_path: Path, drawn: list[Figure]) -> None:
    plot.convergence(full(), tmp_path / "c.png")
    panels = [axes for axes in drawn[0].axes[1:] if axes.axison]
    assert [axes.get_title(loc="left").partition(",")[0] for axes in panels] == ["picard", LONG, "anderson-2"]
    assert [len(axes.collections) for axes in panels] == [1, 1, 2], "bands: default and tuned, none for peers"
    band = panels[0].collections[0].get_paths()[0].vertices
    curve = row()["curve"]
    finite = [v for q in ("p10", "p90") for v in curve[q] if v is not None and v > plot.FLOOR]
    for value in finite:
        assert np.isclose(band[:, 1], value).any()


def test_the_plot_leaves_out_what_was_shifted(tmp_path: Path, drawn: list[Figure]) -> None:
    plot.convergence(learned(), tmp_path / "c.png")
    names = ["picard", "anderson-2, tuned", LONG.replace("+", " + "), "scs, its defaults"]
    assert [line.get_label() for line in drawn[0].axes[0].lines] == names
    assert [line.get_linestyle() for line in drawn[0].axes[0].lines] == ["-", "-", "-", ":"]


def test_the_axes_start_at_the_first_evaluation(tmp_path: Path, drawn: list[Figure]) -> None:
    plot.convergence(full(), tmp_path / "c.png")
    figure = drawn[0]
    assert figure.axes[0].get_xlim() == (1, 60)


@pytest.mark.parametrize("value", [None, 0.0, 1e-30, 1.0, 1e-9, 1e2, 1e30])
@pytest.mark.parametrize("steps", [1, 60])
def test_the_axes_make_sense_whatever_the_errors(
    tmp_path: Path, drawn: list[Figure], value: float | None, steps: int
) -> None:
    one = row()
    one["steps"] = steps
    one["curve"] = {"evaluations": [1], "p10": [value], "median": [value], "p90": [value]}
    plot.convergence([one], tmp_path / "c.png")
    low, high = drawn[0].axes[0].get_ylim()
    assert plot.FLOOR <= low <= high / 10 <= plot.CEILING
    left, right = drawn[0].axes[0].get_xlim()
    assert left < right


def test_a_failure_while_drawing_keeps_the_old_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.png"
    path.write_bytes(b"old")

    def fail(self: Figure, file: Path, **kwargs: Any) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot.convergence(full(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_plot_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, matplotlib.__name__, None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        plot.convergence(full(), tmp_path / "c.png")
    assert list(tmp_path.iterdir()) == []


# -- solutions


class Pair(NamedTuple):
    x: Tensor
    error: Tensor


def solution(batch: int, output: Any = None) -> fp.Solution:
    ones = torch.ones(batch, 2, dtype=torch.float64)
    status = torch.full((batch,), fp.Status.CONVERGED)
    status[0] = fp.Status.DIVERGED
    return fp.Solution(ones, 2 * ones if output is None else output, ones[:, 0] / 3, status, 7 * status)


def test_the_first_instances_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(solutions.table(solution(25), torch.full((25,), 0.5), "kkt", 0.05), capsys)
    lines = text.splitlines()
    assert lines[0].split() == ["instance", "status", "evaluations", "residual", "KKT", "error"]
    assert lines[2].split() == ["0", "DIVERGED", "28", "3.33e-01", "5.00e-01"]
    assert lines[21].split()[0] == "19"
    assert lines[-1] == "24 of 25 converged; 2 ms per instance in a batch of 25; the first 20 are shown"
    assert "KKT" not in printed(solutions.table(solution(2), torch.zeros(2), "residual", 0.1), capsys)


def test_solutions_are_saved_where_they_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "solution.v1"
    solutions.save(path, solution(2), torch.tensor([0.1, 0.2]))
    assert [p.name for p in path.parent.iterdir()] == ["solution.v1"]
    saved = np.load(path, allow_pickle=False)
    assert set(saved) == {"x", "status", "evaluations", "residual", "error", "output"}
    assert saved["output"].tolist() == [[2, 2], [2, 2]]
    assert saved["status"].tolist() == [4, 1]


def test_parts_of_an_output_never_hide_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "solution.npz"
    solutions.save(path, solution(2, Pair(torch.zeros(2, 3), torch.ones(2))), torch.tensor([0.1, 0.2]))
    saved = np.load(path, allow_pickle=False)
    assert saved["output_x"].shape == (2, 3)
    assert saved["output_error"].tolist() == [1, 1]
    assert saved["x"].shape == (2, 2)
    assert saved["error"].tolist() == pytest.approx([0.1, 0.2])
