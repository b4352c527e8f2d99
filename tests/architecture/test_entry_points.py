"""Everything that pyproject.toml registers is there, and is what its group says."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import fixedpoint as fp
from fixedpoint.cli import main
from fixedpoint.plugins.entry_points import DISTRIBUTION
from fixedpoint.plugins.registry import Registry

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
DECLARED = {group: dict(points) for group, points in PROJECT["entry-points"].items() if group != "fixedpoint.checkers"}
KINDS = {"maps": fp.FixedPointMap, "accelerators": fp.Accelerator, "families": fp.ProblemFamily, "cones": object}


def test_groups_are_the_registries() -> None:
    assert set(DECLARED) == {registry.group for registry in (fp.maps, fp.accelerators, fp.cones, fp.families)}
    assert PROJECT["entry-points"]["fixedpoint.checkers"] == {"cone": "maps.cones.checks:check_cone"}


@pytest.mark.parametrize("group", DECLARED)
def test_declared_names_are_the_registered_ones(group: str) -> None:
    ours = {p.name: p.value for p in entry_points(group=group) if p.dist is not None and p.dist.name == DISTRIBUTION}
    assert ours == DECLARED[group], "reinstall the project: its entry points changed"
    assert set(Registry(group).names()) >= set(ours)


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, points in DECLARED.items() for name in points])
def test_every_entry_point_resolves(group: str, name: str) -> None:
    loaded = Registry(group).load(name)
    assert isinstance(loaded, type)
    assert issubclass(loaded, KINDS[group.rpartition(".")[2]])
    assert loaded.__doc__, "`fixedpoint list` shows the docstring"


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="fixedpoint")
    assert command.load() is main
