"""Entry points: finding those of a group, what a plug-in says of itself, and what is wrong with one."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

DISTRIBUTION = "fixedpoint-acceleration"


def of(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, whoever registered them; anew where a place on sys.path changed."""
    return _scanned(group, _places())


def _places() -> tuple[tuple[str, int], ...]:
    """Where packages are looked for, and when each place changed last."""
    found = []
    for place in sys.path:
        try:
            found.append((place, os.stat(place or ".").st_mtime_ns))
        except OSError:  # nothing there
            found.append((place, 0))
    return tuple(found)


@lru_cache(maxsize=16)
def _scanned(group: str, places: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group: a scan of all packages takes milliseconds, as much as a small solve."""
    return tuple(entry_points(group=group))


def options(plugin: Callable[..., Any]) -> str:
    """Arguments of a plug-in with their defaults; those without must be given."""
    shown = []
    for name, parameter in inspect.signature(plugin).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            shown.append(str(parameter).partition(":")[0])
        elif parameter.default is parameter.empty:
            shown.append(f"{name} (required)")
        else:
            shown.append(f"{name} ({parameter.default})")
    return ", ".join(shown) or "none"


def needs(plugin: Callable[..., Any]) -> dict[str, bool]:
    """The modules that a plug-in says it `needs`: name -> whether it is installed (nothing is imported)."""
    return {module: importlib.util.find_spec(module) is not None for module in getattr(plugin, "needs", ())}


def remedy(point: EntryPoint, missing: list[str]) -> str:
    """What to install when modules are missing."""
    ours = point.dist is not None and point.dist.name == DISTRIBUTION
    return f'pip install "{DISTRIBUTION}[all]"' if ours else f"pip install {' '.join(missing)}"


def top(point: EntryPoint) -> str:
    """The package that a plug-in is in."""
    return point.module.partition(".")[0]


def owner(point: EntryPoint) -> str:
    """Who registered it."""
    return f"{point.dist.name if point.dist else 'unknown'} ({point.value})"


def shadow(point: EntryPoint) -> str | None:
    """What is wrong when another module of the same name hides the plug-in's package; nothing is imported to know.

    `maps` is a common name for a folder: one in the current directory hides ours when Python searches there first.
    """
    package = top(point)
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module without a spec, made by hand
        return None
    if spec is None or point.dist is None:
        return None
    places = [Path(p).resolve() for p in spec.submodule_search_locations or [spec.origin or ""]]
    if point.dist.name == DISTRIBUTION:
        homes = {Path(__file__).resolve().parents[2] / package}
    else:  # the file list of an editable distribution does not tell
        owned = [f.parts[0] for f in point.dist.files or [] if f.parts[0] in (package, f"{package}.py")]
        homes = {Path(str(point.dist.locate_file(part))).resolve() for part in owned}
    if not homes or any(place in homes for place in places):
        return None
    return (
        f"`{package}` would be imported from {places[0]}, which is not the `{package}` of {point.dist.name}: a folder "
        "or module of the same name comes first on sys.path. Rename it, or run from another directory"
    )
