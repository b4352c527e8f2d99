"""The dependency rule: the core knows no plug-in, plug-ins know the core's public names only, imports stay light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "fixedpoint": {"maps", "accelerators", "benchmarks", "tools", "tests"},
    "maps": {"accelerators", "benchmarks", "tools", "tests"},
    "accelerators": {"maps", "benchmarks", "tools", "tests"},
}
PICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
HEAVY = {"numba", "cvxpy", "scipy", "networkx", "matplotlib", "sklearn", "scs", "typer", "rich"}


def imported(source: str) -> Iterator[str]:
    """Every absolute import of a source text as a dotted name, lazy ones and constant `import_module` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no sources of {package} under {ROOT}"
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import maps.scs as m", ["maps.scs"]),
        ("def lazy():\n    from maps import scs", ["maps.scs"]),
        ("importlib.import_module('maps.scs')", ["maps.scs"]),
        ("__import__('maps')", ["maps"]),
        ("from . import maps\nx = 'import maps'", []),
    ],
)
def test_the_scanner_sees_every_kind_of_import(source: str, expected: list[str]) -> None:
    assert list(imported(source)) == expected


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_do_not_import_each_other(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(package)
        for name in imported(path.read_text())
        if name.partition(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["maps", "accelerators"])
def test_plugins_use_public_names_of_the_core(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(package)
        for name in imported(path.read_text())
        if name.startswith("fixedpoint.") and any(part.startswith("_") for part in name.split("."))
    ]
    assert not wrong


def pickled(source: str) -> Iterator[str]:
    """Whatever in a source text may read or write pickles: such files run code when they are read."""
    for name in imported(source):
        if name.partition(".")[0] in PICKLING or name in ("torch.load", "torch.save"):
            yield name
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield "allow_pickle"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def lazy():\n    from pickle import loads",
        "__import__('dill')",
        "from torch import load",
        "torch.save(weights, path)",
        "read = torch.load",
        "numpy.load(path, allow_pickle=True)",
    ],
)
def test_the_scanner_sees_pickles(source: str) -> None:
    assert list(pickled(source))
    assert not list(pickled("fp.load(path); np.load(path, allow_pickle=False); safetensors.torch.save(t)"))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nothing_is_pickled(package: str) -> None:
    wrong = [f"{path.relative_to(ROOT)}: {what}" for path in files(package) for what in pickled(path.read_text())]
    assert not wrong


@pytest.fixture(scope="module")
def loaded() -> list[set[str]]:
    """Top-level modules loaded in a fresh interpreter after each import, one after the other."""
    steps = ["fixedpoint", "accelerators", "maps.scs", "maps.scs.families.lasso, maps.scs.families.diabetes"]
    report = "seen.append(sorted({name.partition('.')[0] for name in sys.modules}))"
    code = "; ".join(["import json, sys", "seen = []", *(f"import {step}; {report}" for step in steps)])
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(json.dumps(seen))"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [set(names) for names in json.loads(done.stdout)]


def test_importing_the_core_is_light(loaded: list[set[str]]) -> None:
    assert "fixedpoint" in loaded[0]
    assert not loaded[0] & (HEAVY | {"maps", "accelerators"})


def test_importing_accelerators_is_light(loaded: list[set[str]]) -> None:
    assert "accelerators" in loaded[1]
    assert not loaded[1] & (HEAVY | {"maps"})


def test_importing_maps_is_light(loaded: list[set[str]]) -> None:
    assert "maps" in loaded[3]
    assert not loaded[2] & {"cvxpy", "matplotlib", "sklearn", "scs"}
    assert not loaded[3] & {"cvxpy", "matplotlib", "sklearn", "scs"}, "families load what they need when they sample"
