"""The search of robust PCA's settings with both norms in cones: what it minimises, and what it wrote."""

from __future__ import annotations

import numpy as np
import pytest

from fixedpoint.experiments import tuning
from fixedpoint.experiments.comparison.compare import configure, settings_file
from tools.norms import ACCELERATORS, FAMILY, SETTING, missed


def test_all_targets_count_alike() -> None:
    """2, 4 and 8 evaluations to the three targets; where the last is never reached it counts as twice the steps."""
    errors = np.full((10, 5), 1.0)
    errors[1:], errors[3:] = 1e-2, 1e-3
    assert missed(errors) == pytest.approx((2 * 4 * 20) ** (1 / 3))
    errors[7:] = 1e-4
    assert missed(errors) == pytest.approx((2 * 4 * 8) ** (1 / 3))
    errors[7:, 0] = 1e-3
    p90 = 8 + 0.6 * (20 - 8)
    assert missed(errors) == pytest.approx((2 * 2 * 4 * 4 * 8 * p90) ** (1 / 6))


def test_the_settings_file_is_that_of_the_setting() -> None:
    file = settings_file(FAMILY, setting=SETTING)
    assert file is not None
    entries = tuning.load(file, f"{FAMILY}.{SETTING}")["accelerators"]
    assert sorted(entries) == sorted(ACCELERATORS)
    for name in ACCELERATORS:
        found = configure(FAMILY, name, file, SETTING)
        assert (found.family.form, found.family.map.signature.size) == ("norms", 183)
        assert found.family.map.settings.scale == entries[name]["family"]["scale"]  # type: ignore[attr-defined]
