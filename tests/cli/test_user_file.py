"""Families in a file of the user's: `fixedpoint compare my_problem.py:family`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fixedpoint as fp
from fixedpoint.plugins.registry import RegistryError
from tests.cli.conftest import Command

SOURCE = '''
from dataclasses import dataclass

import cvxpy as cp
import torch

import beside
import maps
from maps.affine import RandomAffine
from maps.scs.cvxpy import CvxpyFamily

@dataclass
class Settings:
    size: int = beside.SIZE

p, x = cp.Parameter(Settings().size, name="p"), cp.Variable(Settings().size, name="x")
problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.norm1(x)), [cp.sum(x) == 1])

def sampler(batch, generator):
    return [torch.randn(batch, 3, generator=generator, dtype=torch.float64)]

family = CvxpyFamily(problem, [p], sampler)
unsampled = CvxpyFamily(problem, [p])
number = 3

def factory(scale=1.0):
    return CvxpyFamily(problem, [p], sampler, scale=scale)

def other():
    return 3

def breaking():
    raise ValueError("no such size")

failing = CvxpyFamily(problem, [p], lambda batch, generator: {}["size"])
dropping = CvxpyFamily(problem, [p], lambda batch, generator: [])
elsewhere = CvxpyFamily(problem, [p], beside.sampler)

class Mine(RandomAffine):
    """Mine."""
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "my_problem.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    (path.parent / "beside.py").write_text("SIZE = 3\n\ndef sampler(batch, generator):\n    return 1 / 0\n")
    (path.parent / "maps").mkdir()
    (path.parent / "maps" / "__init__.py").write_text("raise ImportError('the wrong maps')\n")
    return path


def test_tune_train_compare_and_solve(command: Command, file: Path, tmp_path: Path) -> None:
    name = f"{file.relative_to(tmp_path)}:family"
    few = "--accelerators anderson-2 --instances 3 --steps 30 --trials 12"
    code, out, err = command("tune", name, *few.split())
    assert (code, err) == (0, "")
    settings = tmp_path / "fixedpoint-settings" / "folder.my_problem.family.json"
    assert json.loads(settings.read_text())["family"] == "folder.my_problem.family"
    few = "--updates 2 --instances 8 --batch 4 --horizon 4 --option validation=4 --option evaluations=8"
    code, out, err = command("train", name, "warm-start+anderson-2", *few.split())
    assert (code, err) == (0, "")
    assert f"fixedpoint compare {name}" in out
    assert (
        tmp_path / "fixedpoint-training/folder.my_problem.family/warm-start+anderson-2/trained.safetensors"
    ).is_file()
    code, out, err = command("compare", f"./{name}", "--instances", 2, "--steps", 10)
    assert (code, err) == (0, "")
    records = [
        json.loads(line)
        for line in (tmp_path / "results/folder.my_problem.family/records.jsonl").read_text().splitlines()
    ]
    assert {row["family"] for row in records} == {"folder.my_problem.family"}
    rows = {(row["accelerator"], row["variant"]) for row in records}
    assert {("anderson-2", "tuned"), ("anderson-2", "default"), ("warm-start+anderson-2", "trained")} <= rows
    code, out, err = command("solve", name, "--accelerator", "anderson-2", "--instances", 3)
    assert (code, err) == (0, "")
    assert "CONVERGED" in out


@pytest.mark.parametrize("name", ["factory", "Mine"])
def test_a_class_or_a_function_does_too(command: Command, file: Path, name: str) -> None:
    code, _, err = command("compare", f"{file}:{name}", "--accelerators", "picard", "--instances", 2, "--steps", 3)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nowhere.py:family", ["family nowhere.py:family", "no file nowhere.py"]),
        ("my_problem.py:famly", ["nothing there is called 'famly'", "did you mean 'family'?", "family, unsampled"]),
        ("my_problem.py", ["expected my_problem.py:NAME", "families in my_problem.py: family, unsampled"]),
        ("my_problem.py:number", ["expected a family", "got 3"]),
        ("my_problem.py:Settings", ["expected a family", "Settings"]),
        ("my_problem.py:other", ["expected a ProblemFamily, got 3"]),
        ("my_problem.py:unsampled", ["sampler: this CvxpyFamily has none", "sampler=f"]),
        ("broken.py:family", ["broken.py does not run", "ZeroDivisionError: division by zero"]),
        ("lib:family", ["family", "'lib:family'", "Registered"]),
        ("my_problem:family", ["'my_problem:family'", "did you mean 'my_problem.py:family'? "]),
        ("my_problem.py:unsampled", ["family my_problem.py:unsampled: sampler: this"]),
        ("my_problem.py:failing", ["family my_problem.py:failing: KeyError: 'size' (line ", "FIXEDPOINT_DEBUG=1"]),
        ("my_problem.py:dropping", ["family my_problem.py:dropping: sampler: values: expected a list of 1"]),
        ("my_problem.py:elsewhere", ["family my_problem.py:elsewhere: ", "division by zero"]),
        ("my_problem.py:breaking", ["family my_problem.py:breaking: ValueError: no such size (line "]),
    ],
)
def test_mistakes_end_in_one_line(
    command: Command, file: Path, monkeypatch: pytest.MonkeyPatch, name: str, named: list[str]
) -> None:
    (file.parent / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(file.parent)
    before = sorted(path for path in file.parent.rglob("*") if "__pycache__" not in str(path))
    for line in (["compare", name, "--accelerators", "picard"], ["solve", name], ["tune", name, "--trials", 10]):
        code, out, err = command(*line)
        assert (code, out) == (2, "")
        (message,) = err.splitlines()
        assert message.startswith("error: ")
        for words in named:
            assert words in message
    assert sorted(path for path in file.parent.rglob("*") if "__pycache__" not in str(path)) == before


def test_a_file_runs_once_until_it_changes(file: Path) -> None:
    first = fp.families.create(f"{file}:family")
    assert fp.families.create(f"{file}:family") is first
    file.write_text(SOURCE.replace("norm1(x)", "norm1(2 * x)"))
    changed = fp.families.create(f"{file}:family")
    assert changed is not first
    assert str(changed.problem.objective) != str(first.problem.objective)
    with pytest.raises(RegistryError, match="no file"):
        fp.families.load(f"{file.parent}/gone.py:family")
    with pytest.raises(TypeError, match="family: expected a ProblemFamily or a name, got 3"):
        fp.families.load(3)  # type: ignore[arg-type]
