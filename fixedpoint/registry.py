"""Registries of plug-ins: entry points, loaded only when asked for.

Our own maps, accelerators, cones and families register through the same door as anybody's (pyproject.toml). A
plug-in is a class or callable that `create` calls with options.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple

DISTRIBUTION = "fixedpoint-acceleration"


class RegistryError(LookupError):
    """A plug-in that is unknown, registered twice, broken or shadowed. The message says what to do."""


class Description(NamedTuple):
    """A plug-in for people."""

    name: str
    summary: str
    options: str
    distribution: str


class Registry:
    """The plug-ins of one entry-point group, by name, sorted."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.kind = group.rpartition(".")[2]

    def names(self) -> list[str]:
        """Registered names, sorted.

        Raises:
            RegistryError: one name is registered by two distributions.
        """
        return sorted(self._points())

    def load(self, name: str) -> Callable[..., Any]:
        """The plug-in itself, imported now.

        Raises:
            RegistryError: the name is unknown, or the plug-in cannot be imported.
        """
        points = self._points()
        if name not in points:
            close = difflib.get_close_matches(name, points, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise RegistryError(f"no {self._one()} named {name!r}; {hint}Registered: {', '.join(sorted(points))}")
        point = points[name]
        try:
            loaded = point.load()
        except Exception as error:
            shadow = _shadow(point)
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            reason = shadow or f"{type(error).__name__}: {error}"
            if not shadow and missing and missing.partition(".")[0] != point.module.partition(".")[0]:
                reason += f' (an extra may be missing: pip install "{DISTRIBUTION}[all]")'
            raise RegistryError(f"{self._one()} {name!r} ({point.value}) cannot be loaded: {reason}") from error
        if shadow := _shadow(point):
            raise RegistryError(f"{self._one()} {name!r} ({point.value}) cannot be trusted: {shadow}")
        return loaded

    def create(self, name: str, **options: Any) -> Any:
        """A new plug-in object, made with `options`.

        Raises:
            RegistryError: as `load`; TypeError or ValueError: the options do not fit.
        """
        return self.load(name)(**options)

    def available(self) -> dict[str, Callable[..., Any]]:
        """Every plug-in that loads, by name; one that does not is skipped with a warning."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.load(name)
            except RegistryError as error:
                warnings.warn(str(error), stacklevel=2)
        return found

    def describe(self) -> list[Description]:
        """One row per plug-in for people, broken ones included."""
        rows = []
        for name, point in sorted(self._points().items()):
            origin = point.dist.name if point.dist else point.value
            try:
                plugin = self.load(name)
            except RegistryError as error:
                rows.append(Description(name, f"BROKEN: {error}", "", origin))
                continue
            summary = (inspect.getdoc(plugin) or "").partition("\n\n")[0].replace("\n", " ")
            rows.append(Description(name, summary, _options(plugin), origin))
        return rows

    def _points(self) -> dict[str, EntryPoint]:
        points: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            other = points.get(point.name)
            if other is not None and other.value != point.value:
                owners = " and ".join(sorted({_owner(other), _owner(point)}))
                raise RegistryError(f"{self.kind} name {point.name!r} is registered twice: by {owners}")
            points[point.name] = point
        return points

    def _one(self) -> str:
        return {"families": "family"}.get(self.kind, self.kind.removesuffix("s"))


def _options(plugin: Callable[..., Any]) -> str:
    """Arguments of a plug-in with their defaults; those without must be given."""
    shown = []
    for name, parameter in inspect.signature(plugin).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            shown.append("...")
        elif parameter.default is parameter.empty:
            shown.append(f"{name} (required)")
        else:
            shown.append(f"{name} ({parameter.default})")
    return ", ".join(shown) or "none"


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name if point.dist else 'unknown'} ({point.value})"


def _shadow(point: EntryPoint) -> str | None:
    """What is wrong when another module of the same name hides the plug-in's package.

    `maps` is a common name for a folder: one in the current directory hides ours when Python searches there first.
    """
    top = point.module.partition(".")[0]
    module = sys.modules.get(top)
    if module is None:
        try:
            module = importlib.import_module(top)
        except Exception:
            return None
    places = [str(p) for p in getattr(module, "__path__", [])] or [str(getattr(module, "__file__", None))]
    home = Path(__file__).resolve().parent.parent
    if point.dist is not None and point.dist.name == DISTRIBUTION:
        wrong = all(Path(p).resolve().parent != home for p in places)
    else:
        wrong = bool(point.dist and point.dist.files) and not _provided(point, places)
    if not wrong:
        return None
    return (
        f"`{top}` was imported from {places[0]}, which is not the `{top}` of "
        f"{point.dist.name if point.dist else 'its distribution'}: a folder or module of the same name comes first on "
        "sys.path. Rename it, or run from another directory"
    )


def _provided(point: EntryPoint, places: list[str]) -> bool:
    """Whether one of the places belongs to the distribution, as far as its file list tells (editable ones do not)."""
    assert point.dist is not None
    top = point.module.partition(".")[0]
    owned = [f for f in point.dist.files or [] if f.parts and f.parts[0] in (top, f"{top}.py")]
    if not owned:
        return True
    roots = {Path(str(point.dist.locate_file(f.parts[0]))).resolve() for f in owned}
    return any(Path(p).resolve() in roots for p in places)


maps = Registry("fixedpoint.maps")
accelerators = Registry("fixedpoint.accelerators")
cones = Registry("fixedpoint.cones")
families = Registry("fixedpoint.families")
