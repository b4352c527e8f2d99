"""Registries: names, errors that say what to do, and plug-ins that are broken, missing something or shadowed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import fixedpoint as fp
from fixedpoint import RegistryError
from fixedpoint.plugins.registry import Registry
from tests import distributions

THING = """
class Thing:
    'A thing.'

    def __init__(self, size, rate=0.5, **others):
        self.size = size
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path for distributions of the test's own; sys.path and sys.modules are restored."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("thing_")]:
        del sys.modules[name]


@pytest.mark.parametrize("registry", [fp.maps, fp.accelerators, fp.cones, fp.families], ids=lambda r: r.kind)
def test_names_are_sorted(registry: Registry) -> None:
    assert registry.names() == sorted(registry.names())
    assert [row.name for row in registry.describe()] == registry.names()
    assert list(registry.available()) == registry.names()


def test_names_are_sorted_whatever_their_order_of_registration(path: Path) -> None:
    distributions.write(path, "one", {"maps:zenith": "thing_a:Thing", "maps:aardvark": "thing_a:Thing"})
    names = fp.maps.names()
    assert names == sorted(names)
    assert names[0] == "aardvark"


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(RegistryError, match=r"no accelerator named 'andersn-2'; did you mean 'anderson-2'\?"):
        fp.accelerators.load("andersn-2")
    with pytest.raises(RegistryError, match="no family named 'xyzzy'; Registered: affine, ") as caught:
        fp.families.create("xyzzy")
    assert "did you mean" not in str(caught.value)


def test_create_passes_options(path: Path) -> None:
    distributions.write(path, "one", {"maps:thing": "thing_a:Thing"}, {"thing_a.py": THING})
    assert fp.maps.create("thing", size=3).size == 3
    with pytest.raises(TypeError, match="size"):
        fp.maps.create("thing")


def test_describe_says_what_a_plugin_is_and_takes(path: Path) -> None:
    distributions.write(path, "one", {"maps:thing": "thing_a:Thing"}, {"thing_a.py": THING})
    (row,) = [row for row in fp.maps.describe() if row.name == "thing"]
    assert row.summary == "A thing."
    assert row.options == "size (required), rate (0.5), **others"
    assert row.distribution == "one"
    assert not row.broken


@pytest.mark.parametrize("value", ["thing_a:Thing", "thing_b:Thing"], ids=["same-object", "another-object"])
def test_a_name_registered_twice_names_both_distributions(path: Path, value: str) -> None:
    distributions.write(path / "1", "first-dist", {"maps:twin": "thing_a:Thing"}, {"thing_a.py": THING})
    distributions.write(path / "2", "second-dist", {"maps:twin": value})
    sys.path[:0] = [str(path / "1"), str(path / "2")]
    for act in (fp.maps.names, fp.maps.describe, lambda: fp.maps.load("twin")):
        with pytest.raises(RegistryError, match=r"'twin' is registered twice: by first-dist .* and second-dist"):
            act()


def test_nobody_takes_our_names(path: Path) -> None:
    distributions.write(path, "usurper", {"accelerators:picard": "thing_a:Thing"}, {"thing_a.py": THING})
    with pytest.raises(RegistryError, match=r"'picard' is registered twice: by fixedpoint-acceleration .* and usurper"):
        fp.accelerators.load("picard")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('no such luck')", "ImportError: no such luck"),
        ("1 / 0", "ZeroDivisionError"),
        ("Thing = 3", "expected a class or callable, got 3"),
        ("", "AttributeError"),
        ("import unheard_of.part", "pip install unheard_of"),
    ],
)
def test_a_broken_plugin_breaks_nothing_else(path: Path, text: str, reason: str) -> None:
    distributions.write(path, "broken", {"maps:thing": "thing_c:Thing"}, {"thing_c.py": text})
    with pytest.raises(RegistryError, match=r"map 'thing' \(thing_c:Thing\) cannot be loaded: ") as caught:
        fp.maps.load("thing")
    assert reason in str(caught.value)
    with pytest.warns(UserWarning, match="map 'thing'"):
        found = fp.maps.available()
    assert "thing" not in found
    assert "affine" in found
    rows = {row.name: row for row in fp.maps.describe()}
    assert rows["thing"].broken
    assert rows["thing"].summary.startswith("BROKEN: ")
    assert reason in rows["thing"].summary
    assert not rows["affine"].broken


def test_a_missing_module_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    needs = {row.name: row.needs for row in fp.families.describe()}
    assert needs["lasso"] == {"cvxpy": False, "scs": True}
    assert needs["affine"] == {}
    with pytest.raises(
        RegistryError, match=r"^family 'lasso' needs cvxpy: pip install .fixedpoint-acceleration\[all\]"
    ):
        fp.families.create("lasso")


def test_a_missing_import_of_ours_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "maps.affine")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RegistryError, match=r"torch.*pip install .fixedpoint-acceleration\[all\]"):
        fp.maps.load("affine")


def test_a_plugin_of_another_distribution_is_not_mistaken_for_a_shadow(path: Path) -> None:
    distributions.write(
        path, "one", {"maps:thing": "thing_a.deep:Thing"}, {"thing_a/__init__.py": "", "thing_a/deep.py": THING}
    )
    assert fp.maps.load("thing").__name__ == "Thing"


def test_a_shadowed_plugin_of_another_distribution_is_refused(path: Path) -> None:
    distributions.write(path / "site", "one", {"maps:thing": "thing_a:Thing"}, {"thing_a.py": THING})
    sys.path.insert(0, str(path / "site"))
    (path / "thing_a.py").write_text(THING)
    sys.path.insert(0, str(path))
    with pytest.raises(RegistryError, match=r"thing_a\.py, which is not the `thing_a` of one"):
        fp.maps.load("thing")


@pytest.mark.parametrize(
    "contents",
    [{"__init__.py": "1 / 0"}, {"__init__.py": "", "affine.py": "class RandomAffine: pass"}],
    ids=["another-package", "with-the-wanted-submodule"],
)
def test_a_folder_that_hides_ours_is_named_and_not_imported(tmp_path: Path, contents: dict[str, str]) -> None:
    mark = "import pathlib; pathlib.Path('imported').touch()\n"
    (tmp_path / "maps").mkdir()
    for name, text in contents.items():
        (tmp_path / "maps" / name).write_text(mark + text)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "fixedpoint", "solve", "affine"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: family 'affine' (maps.affine:RandomAffine) cannot be loaded: `maps` would be imported"
    )
    assert str(tmp_path / "maps") in line
    assert "Rename it, or run from another directory" in line
    assert not (tmp_path / "imported").exists()


# -- families in files


def test_different_files_have_different_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    label = fp.families.label
    assert label("my_problem.py:family") == "my_problem.family"
    assert label("./my_problem.py:family") == label(f"{here}/my_problem.py:family") == "my_problem.family"
    assert label("other/my_problem.py:family") == "other.my_problem.family"
    assert label("affine") == "affine"
    outside = label("../my_problem.py:family")
    assert outside == label(f"{tmp_path.resolve()}/my_problem.py:family")
    assert outside == ".".join(["%2F", *tmp_path.resolve().parts[1:], "my_problem", "family"])
    files = ["a/b.py", "a.b.py", "a%2Eb.py", "a/b/c.py", "a.b/c.py", "a/b.c.py", "../a/b.py", "..a/b.py", "/a/b.py"]
    labels = {label(f"{file}:family") for file in files}
    assert len(labels) == len(files)
    assert not any("/" in name or name.startswith(".") for name in labels), "the names of files that one sees"


# -- from a plug-in back to its name


def test_a_name_is_found_again_wherever_the_class_lives() -> None:
    for registry in (fp.maps, fp.accelerators, fp.families):
        assert [registry.name_of(registry.load(name)) for name in registry.names()] == registry.names()


def test_what_is_not_registered_has_no_name() -> None:
    class AndersonII(fp.accelerators.load("anderson-2")):  # type: ignore[misc]
        pass

    AndersonII.__qualname__ = "AndersonII"
    with pytest.raises(RegistryError, match=r"test_registry:AndersonII is not a registered accelerator: give its pack"):
        fp.accelerators.name_of(AndersonII)
    with pytest.raises(RegistryError, match="is not a registered family"):
        fp.families.name_of(fp.maps.load("affine"))


def test_a_broken_namesake_hides_no_name(path: Path) -> None:
    distributions.write(path, "broken", {"accelerators:a-thing": "thing_c:GRU"}, {"thing_c.py": "1 / 0"})
    assert fp.accelerators.names()[0] == "a-thing"
    assert fp.accelerators.name_of(fp.accelerators.load("gru")) == "gru"


def test_folders_are_those_of_the_packages_that_register(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Path(fp.__file__).parent.parent / "accelerators"
    assert ours in fp.accelerators.folders()
    modules = {"thing_a/__init__.py": "1 / 0", "thing_a/deep.py": THING, "thing_b.py": THING}
    points = {
        "accelerators:one": "thing_a.deep:Thing",
        "accelerators:two": "thing_b:Thing",
        "accelerators:lost": "thing_nowhere:Thing",
        "accelerators:odd": "thing_odd:Thing",
    }
    distributions.write(path, "one", points, modules)
    monkeypatch.setitem(sys.modules, "thing_odd", types.ModuleType("thing_odd"))
    assert {ours, path / "thing_a"} <= set(fp.accelerators.folders())
    assert not any(folder.name.startswith("thing_") for folder in set(fp.accelerators.folders()) - {path / "thing_a"})
