"""The command line: help that teaches, and the commands list, solve and check."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import fixedpoint as fp
from fixedpoint.cli.application import app
from fixedpoint.experiments.report.table import WIDTH
from tests import distributions
from tests.cli.conftest import Command


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


# -- help


def commands() -> Iterator[tuple[list[str], Any]]:
    def walk(path: list[str], found: Any) -> Iterator[tuple[list[str], Any]]:
        yield path, found
        for name, sub in getattr(found, "commands", {}).items():
            yield from walk([*path, name], sub)

    return walk([], typer.main.get_command(app))


@pytest.mark.parametrize(
    ("path", "found"), list(commands()), ids=lambda value: "-".join(value) if isinstance(value, list) else ""
)
def test_help_teaches(command: Command, path: list[str], found: Any) -> None:
    code, out, err = command(*path, "--help")
    assert (code, err) == (0, "")
    assert "…" not in out
    assert widest(out) <= WIDTH
    assert found.help
    for parameter in found.params:
        if parameter.name not in ("help", "version"):
            assert getattr(parameter, "help", None), f"{parameter.name} has no help"
            assert parameter.name.replace("_", "-") in out


def test_without_a_command_there_is_help(command: Command) -> None:
    code, out, err = command()
    assert code == 2
    assert "Start with" in out + err
    assert "error:" not in err


def test_the_version(command: Command) -> None:
    assert command("--version") == (0, fp.__version__ + "\n", "")


# -- list


def test_list_shows_every_plugin(command: Command) -> None:
    code, out, _ = command("list")
    assert code == 0
    assert widest(out) <= WIDTH
    assert "…" not in out
    assert "BROKEN" not in out
    first_words = [line.split(" ")[0] for line in out.splitlines()]
    for registry in (fp.maps, fp.accelerators, fp.cones, fp.families):
        assert {registry.kind, *registry.names()} <= set(first_words)


def test_list_marks_what_is_missing_or_broken(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributions.write(tmp_path / "site", "odd", {"maps:hopeless": "no_such_module_anywhere:Thing"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    code, out, _ = command("list")
    assert code == 0
    assert "cvxpy (missing)" in " ".join(out.split())
    assert "BROKEN" in out
    assert "[from odd]" in " ".join(out.split())


# -- solve


def test_solve_succeeds_when_all_converge(command: Command) -> None:
    code, out, err = command("solve", "affine", "--instances", 3)
    assert (code, err) == (0, "")
    assert out.count("CONVERGED") == 3
    assert "3 of 3 converged" in out
    assert widest(out) <= WIDTH


def test_solve_fails_when_one_does_not(command: Command) -> None:
    code, out, _ = command("solve", "affine", "--instances", 3, "--max-evaluations", 2)
    assert code == 1
    assert "0 of 3 converged" in out
    assert out.count("MAX_EVALUATIONS") == 3


def test_solve_writes_what_it_found(command: Command, tmp_path: Path) -> None:
    options = ["--instances", 2, "--accelerator", "picard", "--seed", 3, "--tolerance", 1e-9]
    code, out, _ = command("solve", "affine", *options, "--out", "deep/solution.npz")
    assert code == 0
    assert "deep/solution.npz" in out
    with np.load(tmp_path / "deep" / "solution.npz") as saved:
        assert saved["x"].shape == saved["output"].shape == (2, 10)
        assert (saved["status"] == fp.Status.CONVERGED).all()
        assert (saved["residual"] <= 1e-9).all()
        assert f"{saved['evaluations'][0]}" in out


def test_solve_uses_the_settings_that_are_near(command: Command, tmp_path: Path) -> None:
    entry = {"family": {"step": 7.0}, "accelerator": {}, "score": 1.0}
    (tmp_path / "fixedpoint-settings").mkdir()
    path = tmp_path / "fixedpoint-settings" / "elastic-net.json"
    path.write_text(json.dumps({"family": "elastic-net", "accelerators": {"picard": entry}}))
    code, _, err = command("solve", "elastic-net", "--accelerator", "picard")
    assert code == 2
    assert "elastic-net.json, picard: step: expected a number in (0, 2)" in err


# -- check


MUTATING = """
from accelerators import Picard

class Mutating(Picard):
    "Plain iteration that changes what it is shown."

    def step(self, at, state):
        at.x.add_(1)
        return at.fx, state
"""


def test_check_reports_and_fails_by_exit_code(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"accelerators:mutating": "mutating_plugin:Mutating"}
    distributions.write(tmp_path / "site", "odd", points, {"mutating_plugin.py": MUTATING})
    monkeypatch.syspath_prepend(tmp_path / "site")
    code, out, _ = command("check", "accelerator", "picard")
    assert code == 0
    assert "inputs-untouched" in out
    code, out, _ = command("check", "accelerator", "mutating")
    assert code == 1
    assert "FAIL  inputs-untouched" in out


def test_check_map_reports_every_family(command: Command) -> None:
    code, out, _ = command("check", "map", "affine")
    assert code == 0
    assert "affine: shape-and-dtype" in out
