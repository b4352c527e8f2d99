"""The shape of the house: no import circle, no folder that is too full."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fixedpoint", "maps", "accelerators", "benchmarks", "tools")
MOST = 12
"""Modules in a folder, besides its `__init__`."""


def modules(root: Path, packages: tuple[str, ...]) -> dict[str, Path]:
    """Every module by its dotted name; a package is its `__init__`."""
    found = {}
    for package in packages:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, known: set[str]) -> Iterator[str]:
    """The known modules that a source text imports anywhere: in functions and for type checking too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known:
                    yield whole
                elif node.module in known:
                    yield node.module


def graph(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """What imports what; that a package collects names from within itself is no circle."""
    found = modules(root, packages)
    arrows = {name: set(imports(path.read_text(), set(found))) - {name} for name, path in found.items()}
    for name, targets in arrows.items():
        arrows[name] = {target for target in targets if not name.startswith(f"{target}.")}
    return arrows


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A chain of imports that ends where it began, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(arrows.get(name, ())):
            if found := walk(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := walk(name, []))), [])


def test_there_is_no_import_circle() -> None:
    found = circle(graph(ROOT, PACKAGES))
    assert not found, " -> ".join(found)


@pytest.mark.parametrize(
    ("back", "expected"),
    [
        ("import house.a", True),
        ("def late():\n    from house import a", True),
        ("if TYPE_CHECKING:\n    from house.a import A", True),
        ("from house.c import C", False),
        ("from elsewhere import a", False),
    ],
)
def test_the_scanner_sees_circles_of_every_kind(tmp_path: Path, back: str, expected: bool) -> None:
    files = {"__init__": "from house.a import A", "a": "from house import b\nA = 1", "b": back, "c": "C = 1"}
    (tmp_path / "house").mkdir()
    for name, text in files.items():
        (tmp_path / "house" / f"{name}.py").write_text(text)
    found = circle(graph(tmp_path, ("house",)))
    assert bool(found) is expected
    assert not found or found[0] == found[-1]


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_no_folder_is_too_full(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    counts = {str(f.relative_to(ROOT)): len([p for p in f.glob("*.py") if p.name != "__init__.py"]) for f in folders}
    assert not {name: count for name, count in counts.items() if count > MOST}
