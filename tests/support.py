"""What several tests use: the command line run in this process, and a disk that fills up half-way."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

import fixedpoint as fp
from fixedpoint.cli import main
from fixedpoint.experiments import tuning
from fixedpoint.experiments.tuning import Tuned
from maps.elastic_net import RandomElasticNet


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """`fixedpoint ARGUMENTS`: exit code and what was printed."""
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    assert isinstance(exit.value.code, int)
    return Outcome(exit.value.code, *capsys.readouterr())


def take_solutions_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the elastic nets have no solutions to learn from."""
    monkeypatch.setattr(RandomElasticNet, "solutions", fp.ProblemFamily.solutions)


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on `Path.write_text` writes half of the text and raises OSError."""
    write = Path.write_text

    def half(self: Path, text: str, *args: object, **kwargs: object) -> int:
        write(self, text[: len(text) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", half)


def tuned(path: Path, family: str = "elastic-net", **settings: Tuned) -> Path:
    """A settings file; keyword `anderson_2` is accelerator "anderson-2"."""
    tuning.save(path, family, {name.replace("_", "-"): entry for name, entry in settings.items()}, {})
    return path
