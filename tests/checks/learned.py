"""Learned accelerators as training leaves them, without the training."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import fixedpoint as fp
from fixedpoint.checks.specimen import Specimen
from fixedpoint.learning.learned import Calibrated, Examples, Learned

Kind = TypeVar("Kind", bound=fp.Accelerator)

SIGNATURE = fp.Signature(size=5, features=3, coordinates={"map": "specimen"})
"""Of the maps that they are built for: `fixedpoint.checks.specimen.Specimen` makes one."""


def random_weights(accelerator: Kind, seed: int = 0) -> Kind:
    """The accelerator, built before, with buffers fitted and calibrated to noise and with random parameters."""
    assert isinstance(accelerator, nn.Module)
    assert accelerator.signature is not None
    size, features = accelerator.signature.size, accelerator.signature.features
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    for module in accelerator.modules():
        if isinstance(module, Learned):
            module.fit(Examples(normal(4, 9, size), normal(4, 9, size), normal(9, features), normal(9, size)))
        if isinstance(module, Calibrated) and accelerator.learned_steps is not None:
            module.calibrate(1 + normal(accelerator.learned_steps + 1, 9).abs())
    with torch.no_grad():
        for parameter in accelerator.parameters():
            parameter.copy_(0.3 * normal(*parameter.shape))
    return accelerator


def small(name: str = "coordinate-gru", **options: Any) -> fp.Accelerator:
    """A learned accelerator with few weights, as if trained."""
    options = {"hidden": 2, "steps": 3} if not options and name == "coordinate-gru" else options
    return random_weights(fp.accelerators.create(name, **options).bind(SIGNATURE))


def points(accelerator: fp.Accelerator) -> Tensor:
    """(12, 4, n) what it does on a map of `SIGNATURE`."""
    specimen = Specimen(SIGNATURE)
    with torch.no_grad():
        return fp.unroll(specimen, specimen.sample(4, rate=0.9, seed=1), accelerator, 12).x


def same(one: fp.Accelerator, other: fp.Accelerator) -> bool:
    return torch.equal(points(one), points(other))
