"""Shared by all tests: reproducible hypothesis runs, and small problems."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)
