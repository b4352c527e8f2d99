"""Where things are found: tuned settings, trained weights, named settings and shifts.

FAMILY stands for the family's name, my_problem.family for "my_problem.py:family", or FAMILY.SETTING in a named setting.
Tuned settings are in ./fixedpoint-settings/FAMILY.json, else beside the family's module; trained accelerators in
./fixedpoint-training/FAMILY/NAME/, else in the folder `pretrained/FAMILY` of a package that registers accelerators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixedpoint.experiments import tuning
from fixedpoint.learning.training import TRAINED
from fixedpoint.plugins.registry import FamilySource, accelerators, families

LOCAL_SETTINGS = Path("fixedpoint-settings")
"""Folder that `fixedpoint tune` writes to and `fixedpoint compare` looks in first."""

LOCAL_TRAINING = Path("fixedpoint-training")
"""Folder that `fixedpoint train` writes to and `fixedpoint compare` looks in first."""


def label(family: FamilySource, setting: str | None) -> str:
    """FAMILY or FAMILY.SETTING, as folders and files are called."""
    name = families.label(family)
    return name if setting is None else f"{name}.{setting}"


def setting_options(family: FamilySource, setting: str | None) -> dict[str, Any]:
    """The constructor arguments that a named setting of a family stands for.

    Raises:
        ValueError: no such setting.
    """
    return _named(family, "settings", setting)


def shift_options(family: FamilySource, shift: str) -> dict[str, Any]:
    """The constructor arguments that a shifted distribution of a family stands for.

    Raises:
        ValueError: no such shift.
    """
    return _named(family, "shifts", shift)


def _named(family: FamilySource, what: str, name: str | None) -> dict[str, Any]:
    known = getattr(families.load(family), what, {})
    if name is not None and name not in known:
        listed = ", ".join(known) or "none"
        raise ValueError(f"{what.removesuffix('s')}: {families.label(family)} has no {name!r}; it has {listed}")
    return {} if name is None else dict(known[name])


def settings_file(family: FamilySource, given: Path | None = None, setting: str | None = None) -> Path | None:
    """The settings file to use: the one given, else the local one, else the shipped one, else None.

    Raises:
        ValueError: the one given does not exist.
    """
    if given is not None:
        if not given.is_file():
            raise ValueError(f"settings: no file {given}")
        return given
    places = [LOCAL_SETTINGS / f"{label(family, setting)}.json"]
    plugin: Any = families.load(family)
    if hasattr(plugin, "tuned_file"):  # a factory ships none
        shipped = plugin.tuned_file()
        places.append(shipped if setting is None else shipped.with_suffix(f".{setting}.json"))
    return next((path for path in places if path.is_file()), None)


def trained_files(family: FamilySource, setting: str | None = None) -> dict[str, Path]:
    """Trained accelerators by name: the local ones, and the shipped ones that have no local namesake."""
    where = label(family, setting)
    shipped = {
        p.stem: p for f in accelerators.folders() for p in sorted((f / "pretrained" / where).glob("*.safetensors"))
    }
    local = {p.parent.name: p for p in sorted((LOCAL_TRAINING / where).glob(f"*/{TRAINED}"))}
    return dict(sorted({**shipped, **local}.items()))


def starting_point(
    family: FamilySource, setting: str | None, settings: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(family options, options of "anderson-2") that learning builds on: the setting's, or the best tuned ones."""
    tuned = {} if settings is None else tuning.load(settings, label(family, setting))["accelerators"]
    entry = tuned.get("anderson-2", {"family": {}, "accelerator": {}})
    return {**setting_options(family, setting), **entry["family"]}, dict(entry["accelerator"])
