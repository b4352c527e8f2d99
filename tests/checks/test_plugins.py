import pytest

from fixedpoint.checks import MAP_CHECKS, check_registered_map, families_of
from fixedpoint.plugins.registry import RegistryError, families, maps
from maps.affine import RandomAffine

pytestmark = pytest.mark.filterwarnings("ignore:family:UserWarning")  # of another plug-in that does not load


def test_the_families_of_a_map():
    found = families_of("affine")
    assert "affine" in found
    assert all(isinstance(family, RandomAffine) for family in found.values())


def test_a_registered_map_is_checked_on_every_family(monkeypatch):
    monkeypatch.setattr(
        families, "available", lambda: {"small": lambda: RandomAffine(4), "other": lambda: RandomAffine(5)}
    )
    report = check_registered_map("affine")
    assert report.passed
    names = [f"{family}: {check}" for family in ("small", "other") for check in MAP_CHECKS]
    assert [r.name for r in report.results] == ["family", *names]


def test_a_map_without_a_family_fails(monkeypatch):
    monkeypatch.setattr(families, "available", dict)
    report = check_registered_map("affine")
    assert [(r.name, r.message) for r in report.failures] == [
        ("family", "no registered family has problems for this map")
    ]


def test_what_is_registered_must_be_a_map(monkeypatch):
    with pytest.raises(RegistryError, match="did you mean 'affine'"):
        families_of("affin")
    monkeypatch.setattr(maps, "load", lambda name: dict)
    with pytest.raises(TypeError, match="expected a subclass of FixedPointMap"):
        families_of("affine")
