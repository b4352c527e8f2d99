"""A separate little distribution (`plugin`) brings a map, an accelerator and a family, by entry points alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent / "plugin"

DRIVER = """
import contextlib, io, json, sys
from fixedpoint.cli import main

results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as exit:
            results.append((exit.code, out.getvalue(), err.getvalue()))
print(json.dumps([results, sys.modules["orbits"].__file__]))
"""

BUDGET = ["--instances", "4", "--steps", "10"]
COMMANDS = {
    "list": ["list"],
    "check map": ["check", "map", "kepler"],
    "check accelerator": ["check", "accelerator", "aitken"],
    "solve": ["solve", "orbits", "--accelerator", "aitken"],
    "compare": ["compare", "orbits", "--accelerators", "picard,aitken", *BUDGET],
    "compare ours": ["compare", "elastic-net", "--accelerators", "picard,aitken", "--steps", "60", "--instances", "8"],
    "compare cones": ["compare", "diabetes-lasso", "--accelerators", "aitken", *BUDGET],
    "tune": ["tune", "orbits", "--accelerators", "anderson-2", "--trials", "10", *BUDGET],
}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


class Session(NamedTuple):
    folder: Path
    """The current folder of the commands."""
    outcomes: dict[str, Outcome]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in built from a copy of its source and installed, away from everything else."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *options]
    done = subprocess.run(
        [*pip, "--target", folder / "site", folder / "source"], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def session(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Every command, one after the other, in a fresh interpreter that finds the plug-in by PYTHONPATH."""
    folder = tmp_path_factory.mktemp("session")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(list(COMMANDS.values()))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results, origin = json.loads(done.stdout)
    assert Path(origin).is_relative_to(installed)
    return Session(folder, {name: Outcome(*result) for name, result in zip(COMMANDS, results, strict=True)})


@pytest.mark.parametrize("name", ["kepler", "aitken"])
def test_a_plugin_is_short(name: str) -> None:
    assert len((SOURCE / "orbits" / f"{name}.py").read_text().splitlines()) < 30


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_serves_the_plugin(session: Session, name: str) -> None:
    code, out, err = session.outcomes[name]
    assert (code, err) == (0, ""), out


def test_list_shows_it_with_its_origin(session: Session) -> None:
    out = session.outcomes["list"].out
    for plugin in ("kepler", "aitken", "orbits"):
        assert f"\n{plugin} " in out
    assert " ".join(out.split()).count("[from fixedpoint-orbits]") == 3


def test_its_map_is_checked_on_its_family(session: Session) -> None:
    assert "ok    orbits: traits" in session.outcomes["check map"].out
    assert "ok    differentiable" in session.outcomes["check accelerator"].out


def test_its_accelerator_beats_the_plain_iteration(session: Session) -> None:
    for command, family, mark in (("compare", "orbits", "10"), ("compare ours", "elastic-net", "50")):
        assert f"{family}: " in session.outcomes[command].out
        lines = (session.folder / "results" / family / "records.jsonl").read_text().splitlines()
        errors = {record["accelerator"]: record["error_at"][mark]["median"] for record in map(json.loads, lines)}
        assert errors["aitken"] < 0.6 * errors["picard"]
