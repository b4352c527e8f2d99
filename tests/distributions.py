"""Distributions made for a test: a folder on sys.path with modules and the metadata that entry points come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write(folder: Path, name: str, points: Mapping[str, str], modules: Mapping[str, str] | None = None) -> Path:
    """Write distribution `name` into `folder`: entry points {"group:name": "module:attribute"} and module texts."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups: dict[str, list[str]] = {}
    for key, value in points.items():
        group, _, plugin = key.partition(":")
        groups.setdefault(f"fixedpoint.{group}", []).append(f"{plugin} = {value}")
    lines = [line for group, found in groups.items() for line in (f"[{group}]", *found)]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for path, text in (modules or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in modules or {}))
    return folder
