"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import support
from tests.support import Outcome

Command = Callable[..., Outcome]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`fixedpoint ARGUMENTS` in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return partial(support.command, capsys)
