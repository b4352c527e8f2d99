"""The plot, from records alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from fixedpoint.experiments.report import plot
from tests.experiments.report.rows import LONG, full, learned, row


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
