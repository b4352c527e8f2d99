"""A run that is killed ten times at random moments ends like one that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fixedpoint as fp
from fixedpoint.learning.run_folder import BEST, LOG, PLAN, STATE, TRAINED
from tests.learning import killing

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.learning.killing", str(tmp_path), "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout)
    assert outcome["kills"] == [True] * killing.KILLS, "every one came before the end of the run"
    assert outcome["parts"] == outcome["whole"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert (parts / LOG).read_text() == (whole / LOG).read_text()
    assert (parts / PLAN).read_text() == (whole / PLAN).read_text()
    for name in (STATE, BEST, TRAINED):
        one, two = load_file(whole / name), load_file(parts / name)
        assert one.keys() == two.keys()
        for key in one:
            assert torch.allclose(one[key], two[key], rtol=1e-12, atol=1e-12), (name, key)
    left = {path.name for path in parts.iterdir()} - {LOG, PLAN, STATE, BEST, TRAINED}
    assert all(name.startswith(".") for name in left), "nothing that could be taken for a result"
    assert fp.load(parts / TRAINED).provenance["updates"] == killing.PLAN["updates"]
