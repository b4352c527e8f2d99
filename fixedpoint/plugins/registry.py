"""Registries of plug-ins: entry points, loaded only when asked for.

Our own maps, accelerators, cones and families register through the same door as anybody's (pyproject.toml). A
plug-in is a class or callable that `create` calls with options. A family may also be one in a user's own file, or an
object.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

from fixedpoint.plugins import entry_points
from fixedpoint.plugins.user_file import RegistryError, from_file, in_file, label
from fixedpoint.protocol import ProblemFamily
from fixedpoint.search_space import SearchSpace

FamilySource = str | ProblemFamily
"""A registered name, "FILE.py:NAME" for a family in a user's file, or a family."""


class Description(NamedTuple):
    """A plug-in for people."""

    name: str
    summary: str
    options: str
    distribution: str
    needs: dict[str, bool]
    """Modules it needs beyond the core's dependencies: name -> whether it is installed."""
    broken: bool = False


class Registry:
    """The plug-ins of one entry-point group, by name, sorted."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.kind = group.rpartition(".")[2]
        self._loaded: dict[EntryPoint, tuple[Any, Callable[..., Any]]] = {}
        """What was loaded, with the module that it came from: to look for it again takes milliseconds."""

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
            close = self._close(name)
            hint = f"did you mean {close!r}? " if close else ""
            raise RegistryError(f"no {self._one()} named {name!r}; {hint}Registered: {', '.join(sorted(points))}")
        point = points[name]
        module, loaded = self._loaded.get(point, (None, None))
        if loaded is not None and sys.modules.get(point.module) is module:
            return loaded
        who = f"{self._one()} {name!r} ({point.value})"
        if shadow := entry_points.shadow(point):
            raise RegistryError(f"{who} cannot be loaded: {shadow}")
        try:
            loaded = point.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
            if missing not in ("", entry_points.top(point)):
                reason += f"; {entry_points.remedy(point, [missing])}"
            raise RegistryError(f"{who} cannot be loaded: {reason}") from error
        if not callable(loaded):
            raise RegistryError(f"{who} cannot be loaded: expected a class or callable, got {loaded!r}")
        self._loaded[point] = sys.modules.get(point.module), loaded
        return loaded

    def create(self, name: str, **options: Any) -> Any:
        """A new plug-in object, made with `options`.

        Raises:
            RegistryError: as `load`, or a module that the plug-in `needs` is missing; TypeError or ValueError: the
                options do not fit.
        """
        plugin = self.load(name)
        if missing := [module for module, installed in entry_points.needs(plugin).items() if not installed]:
            remedy = entry_points.remedy(self._points()[name], missing)
            raise RegistryError(f"{self._one()} {name!r} needs {' and '.join(missing)}: {remedy}")
        return plugin(**options)

    def name_of(self, plugin: Callable[..., Any]) -> str:
        """The name that a class or callable is registered under; it need not be loaded.

        Raises:
            RegistryError: it is not registered.
        """
        value = f"{plugin.__module__}:{plugin.__qualname__}"
        for name, point in self._points().items():
            if point.value == value or (point.attr == plugin.__qualname__ and self._loads(name) is plugin):
                return name
        raise RegistryError(f"{value} is not a registered {self._one()}: give its package an entry point")

    def folders(self) -> list[Path]:
        """The folders of the packages that register plug-ins here, sorted; they may ship data beside their code."""
        found = set()
        for point in self._points().values():
            try:
                spec = importlib.util.find_spec(entry_points.top(point))
            except ValueError:  # a module without a spec, made by hand
                continue
            found |= {Path(place) for place in (spec.submodule_search_locations if spec else None) or []}
        return sorted(found)

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
                rows.append(Description(name, f"BROKEN: {error}", "", origin, {}, broken=True))
                continue
            summary = (inspect.getdoc(plugin) or "").partition("\n\n")[0].replace("\n", " ")
            rows.append(Description(name, summary, entry_points.options(plugin), origin, entry_points.needs(plugin)))
        return rows

    def _close(self, name: str) -> str | None:
        """What somebody may have meant by an unknown name."""
        return next(iter(difflib.get_close_matches(name, self._points(), n=1)), None)

    def _loads(self, name: str) -> Callable[..., Any] | None:
        """As `load`; None for a plug-in that cannot be loaded."""
        try:
            return self.load(name)
        except RegistryError:
            return None

    def _points(self) -> dict[str, EntryPoint]:
        points: dict[str, EntryPoint] = {}
        for point in entry_points.of(self.group):
            if other := points.get(point.name):
                owners = " and ".join(sorted([entry_points.owner(other), entry_points.owner(point)]))
                raise RegistryError(f"{self._one()} name {point.name!r} is registered twice: by {owners}")
            points[point.name] = point
        return points

    def _one(self) -> str:
        return {"families": "family"}.get(self.kind, self.kind.removesuffix("s"))


class Families(Registry):
    """The registered families; `load` and `create` also take "FILE.py:NAME" and family objects.

    NAME is a family, a class of families, or a function that makes one from options. A family that has a method
    `remade(**options)`, which gives it with its settings changed, can be tuned like a registered one.
    """

    def load(self, name: FamilySource) -> Callable[..., Any]:
        """See `Registry.load`.

        Raises:
            RegistryError: also a missing or broken file, a name that is not in it, or is no family.
        """
        if isinstance(name, ProblemFamily):
            return _Object(name)
        if not isinstance(name, str):
            raise TypeError(f"family: expected a ProblemFamily or a name, got {name!r}")
        if not in_file(name):
            return super().load(name)
        found = from_file(name)
        return _Object(found) if isinstance(found, ProblemFamily) else found

    def create(self, name: FamilySource, **options: Any) -> Any:
        """See `Registry.create`.

        Raises:
            TypeError: also options for an object without `remade`; a function that makes something else.
        """
        if isinstance(name, str) and not in_file(name):
            return super().create(name, **options)
        made = self.load(name)(**options)
        if not isinstance(made, ProblemFamily):
            raise TypeError(f"family {name}: expected a ProblemFamily, got {made!r}")
        return made

    def label(self, name: FamilySource) -> str:
        """What files, folders and tables call a family: its name, `userfile.label`, or its class."""
        if isinstance(name, str):
            return label(name) if in_file(name) else name
        return type(name).__name__

    def _close(self, name: str) -> str | None:
        file, _, attribute = name.rpartition(":")
        return f"{file}.py:{attribute}" if file and Path(f"{file}.py").is_file() else super()._close(name)


class _Object:
    """A family object in the place of its class."""

    def __init__(self, family: ProblemFamily) -> None:
        self.family = family
        self.needs = family.needs
        can = hasattr(family, "remade")
        self.tunable: Mapping[str, SearchSpace] = family.tunable if can else {}
        self.settings: Mapping[str, Mapping[str, Any]] = family.settings if can else {}
        self.shifts: Mapping[str, Mapping[str, Any]] = family.shifts if can else {}

    def __call__(self, **options: Any) -> ProblemFamily:
        if not options:
            return self.family
        if not hasattr(self.family, "remade"):
            given, kind = ", ".join(options), type(self.family).__name__
            raise TypeError(f"family: this {kind} object has no `remade(**options)` to set {given} with")
        made: ProblemFamily = self.family.remade(**options)
        return made


maps = Registry("fixedpoint.maps")
accelerators = Registry("fixedpoint.accelerators")
cones = Registry("fixedpoint.cones")
families = Families("fixedpoint.families")
