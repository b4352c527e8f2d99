"""What the user may get wrong ends in one line, with an exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import fixedpoint as fp
from maps.elastic_net import RandomElasticNet
from tests import support
from tests.cli.conftest import Command

SHIFTS = RandomElasticNet.shifts


SETTINGS = {
    "corrupt": "{",
    "foreign": json.dumps({"family": "lasso", "accelerators": {}}),
    "unfit": json.dumps(
        {"family": "affine", "accelerators": {"picard": {"family": {"sise": 3}, "accelerator": {}, "score": 1}}}
    ),
}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("fly", ["fly"]),
        ("solve", ["family"]),
        ("solve affine --frobnicate 3", ["--frobnicate"]),
        ("solve afine", ["family", "'afine'", "did you mean 'affine'"]),
        ("compare afine", ["family", "'afine'", "did you mean 'affine'"]),
        ("tune afine --trials 10", ["family", "'afine'", "did you mean 'affine'"]),
        ("check map afine", ["map", "'afine'", "did you mean 'affine'"]),
        ("check accelerator picart", ["accelerator", "'picart'", "did you mean 'picard'"]),
        ("check accelerator gru.safetensors", ["checkpoint gru.safetensors", "no such file"]),
        ("check accelerator broken.safetensors", ["checkpoint broken.safetensors", "truncated or damaged"]),
        ("solve affine --accelerator picart", ["accelerator", "'picart'", "did you mean 'picard'"]),
        ("compare affine --accelerators picard,picart", ["accelerator", "'picart'", "did you mean 'picard'"]),
        ("tune affine --accelerators picart --trials 10", ["accelerator", "'picart'"]),
        ("compare affine --accelerators ,", ["accelerators", "at least one"]),
        ("compare affine --accelerators=", ["accelerators", "at least one"]),
        ("tune affine --accelerators ,", ["accelerators", "at least one"]),
        ("solve affine --seed -1", ["--seed"]),
        ("compare affine --seed -1", ["--seed"]),
        ("tune affine --seed -1", ["--seed"]),
        ("solve affine --instances 0", ["--instances"]),
        ("solve affine --instances two", ["--instances"]),
        ("solve affine --tolerance nan", ["tolerance", "nan"]),
        ("solve affine --tolerance -1", ["tolerance", "-1"]),
        ("solve affine --tolerance small", ["--tolerance"]),
        ("solve affine --max-evaluations 0", ["--max-evaluations"]),
        ("compare affine --steps 0", ["--steps"]),
        ("tune affine --trials 3", ["--trials"]),
        ("solve affine --out file/below/s.npz", ["out", "file/below"]),
        ("solve affine --out folder", ["out", "folder"]),
        ("compare affine --out file", ["out", "file"]),
        ("compare affine --out file/below", ["out", "file/below"]),
        ("compare affine --out /dev/null/x", ["out", "/dev/null/x"]),
        ("tune affine --out file/below/s.json", ["out", "file/below"]),
        ("tune affine --out folder", ["out", "folder"]),
        ("tune affine --out corrupt", ["settings file corrupt"]),
        ("tune affine --out foreign", ["settings file foreign", "'lasso'"]),
        ("solve affine --settings nowhere", ["settings", "nowhere"]),
        ("solve affine --settings folder", ["settings", "folder"]),
        ("solve affine --settings corrupt", ["settings file corrupt"]),
        ("solve affine --settings foreign", ["settings file foreign", "'lasso'"]),
        ("compare affine --settings corrupt", ["settings file corrupt"]),
        ("compare affine --settings foreign", ["settings file foreign", "'lasso'"]),
        ("compare affine --settings unfit --accelerators picard", ["settings file unfit", "picard", "sise"]),
        ("solve affine --setting paper", ["setting", "affine has no 'paper'", "none"]),
        ("tune affine --setting paper --trials 10", ["setting", "affine has no 'paper'", "none"]),
        ("compare affine --setting paper", ["setting", "affine has no 'paper'", "none"]),
        ("compare affine --shifts storm", ["shift", "affine has no 'storm'", "none"]),
        ("compare affine --shifts ,", ["shifts", "at least one"]),
        ("compare affine --accelerators lstm", ["'lstm'", "not been trained", "`fixedpoint train affine lstm`"]),
        ("solve affine --accelerator lstm+picard", ["'lstm+picard'", "`fixedpoint train affine lstm+picard`"]),
        ("train afine gru", ["family", "'afine'", "did you mean 'affine'"]),
        ("train affine gruu", ["accelerator", "'gruu'", "did you mean 'gru'"]),
        ("train affine gru+", ["accelerator", "'gru+'"]),
        ("train affine gru+picard+picard", ["steps", "[20, None]"]),
        ("train affine", ["accelerator"]),
        ("train affine gru --setting paper", ["setting", "affine has no 'paper'"]),
        ("train affine gru --settings nowhere", ["settings", "nowhere"]),
        ("train affine gru --out file/below", ["out", "file/below"]),
        ("train affine gru --out corrupt", ["out", "corrupt"]),
        ("train affine gru --horizon 0", ["horizon", "0"]),
        ("train affine gru --horizon many", ["--horizon", "integer"]),
        ("train affine gru --updates 0", ["updates", "0"]),
        ("train affine gru --loss least", ["loss", "'least'", "log-error"]),
        ("train affine gru --weights most", ["weights", "'most'", "late"]),
        ("train affine gru --batch 600", ["batch", "600", "500"]),
        ("train affine gru --learning-rate nan", ["learning_rate", "nan"]),
        ("train affine gru --seed -1", ["--seed"]),
        ("train affine gru --option hidden", ["option", "NAME.KEY=VALUE", "'hidden'"]),
        ("train affine gru --option =3", ["option", "NAME.KEY=VALUE", "'=3'"]),
        ("train affine gru --option lstm.hidden=3", ["'gru'", "no part named", "lstm"]),
        ("train affine gru --option gru.hiden=3", ["'hiden'"]),
        ("train affine gru --option gru.hidden=0", ["hidden", "0"]),
        ("train affine gru --option clipp=3", ["'clipp'"]),
        ("train affine gru --option clip=none", ["clip", "'none'"]),
        ("train affine gru --option horizon=3", ["horizon", "--horizon"]),
        ("train elastic-net anderson-2", ["accelerator", "nothing to learn"]),
    ],
)
def test_mistakes_end_in_one_line(command: Command, tmp_path: Path, line: str, named: list[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, text in {**SETTINGS, "broken.safetensors": "{"}.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command(*line.split(" "))
    assert code == 2
    assert out == ""
    (message,) = err.splitlines()
    assert message.startswith("error: ")
    for word in named:
        assert word in message
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("what", ["gru --loss solution", "mean-start"])
def test_training_on_solutions_that_are_not_there_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    support.take_solutions_away(monkeypatch)
    code, out, err = command("train", "elastic-net", *what.split(), "--instances", 32)
    assert (code, out) == (2, "")
    assert "needs solutions to learn from, but RandomElasticNet has none" in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_a_missing_module_names_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for line in ("solve diabetes-lasso", "compare diabetes-lasso", "tune diabetes-lasso --trials 10"):
        code, out, err = command(*line.split())
        assert (code, out) == (2, "")
        assert err == "error: family 'diabetes-lasso' needs sklearn: pip install \"fixedpoint-acceleration[all]\"\n"


def test_a_bug_is_not_dressed_as_a_mistake(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fp, "solve", bug)
    code, _, err = command("solve", "affine")
    assert code == 2
    assert err.startswith("error: RuntimeError: a bug (FIXEDPOINT_DEBUG=1")
    monkeypatch.setenv("FIXEDPOINT_DEBUG", "1")
    with pytest.raises(RuntimeError, match="a bug"):
        command("solve", "affine")
