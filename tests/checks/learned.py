"""Learned accelerators as training leaves them, without the training."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

import fixedpoint as fp
from fixedpoint.learned import Calibrated, Examples, Learned

Kind = TypeVar("Kind", bound=fp.Accelerator)

SIGNATURE = fp.Signature(size=5, features=3, coordinates={"map": "specimen"})
"""Of the maps that they are built for: `fixedpoint.checks.specimen.Specimen` makes one."""


def random_weights(accelerator: Kind, seed: int = 0) -> Kind:
    """The accelerator, built before, with buffers fitted and calibrated to noise and with random parameters."""
    assert isinstance(accelerator, nn.Module)
    assert accelerator.signature is not None
    size, features = accelerator.signature.size, accelerator.signature.features
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    for module in accelerator.modules():
        if isinstance(module, Learned):
            module.fit(Examples(normal(4, 9, size), normal(4, 9, size), normal(9, features), normal(9, size)))
        if isinstance(module, Calibrated) and accelerator.trial is not None:
            module.calibrate(1 + normal(accelerator.trial + 1, 9).abs())
    with torch.no_grad():
        for parameter in accelerator.parameters():
            parameter.copy_(0.3 * normal(*parameter.shape))
    return accelerator
