"""Records to make tables and plots of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fixedpoint.experiments.evaluation import record
from fixedpoint.experiments.report import table

LONG = "a-learned-warm-start-with-a-long-name+anderson-2"


def row(
    name: str = "picard",
    variant: str = "default",
    *,
    peer: bool = False,
    form: str = "standard",
    scale: float = 1.0,
    setting: str | None = None,
    shift: str | None = None,
    training: dict[str, Any] | None = None,
    residuals: bool = False,
) -> dict[str, Any]:
    """A record of 60 evaluations of 5 instances; the error falls by 0.8 per evaluation, `scale` times."""
    identity = {"family": "affine", "form": form, "accelerator": name, "variant": variant, "peer": peer}
    identity |= {"setting": setting, "shift": shift, "training": training}
    errors = scale * np.outer(0.8 ** np.arange(60), np.arange(1, 6))
    spent = {"setup": 1.0, "map": 1234.5678, "accelerator": 0.00012, "total": 1235.6}
    identity |= {"seed": 0, "steps": 60, "error": "kkt"}
    return record(identity, np.arange(1, 61), errors, spent, {}, 3 * errors if residuals else None)


COST = {"minutes": 12.5, "instances": 500, "seed": 0, "updates": 1000}


def full() -> list[dict[str, Any]]:
    """A classical comparison."""
    return [
        row("picard"),
        row(LONG, form="conic", scale=1e9),
        row("anderson-2", scale=0.1),
        row("anderson-2", "tuned", scale=0.01),
        row("scs, its defaults", peer=True),
        row("scs, our settings", peer=True),
    ]


def learned() -> list[dict[str, Any]]:
    """A comparison with everything in it: trained rows, shifted rows, a named setting, normalised residuals."""
    found = [
        row("picard", residuals=True, setting="paper"),
        row("anderson-2", "tuned", scale=0.1, residuals=True, setting="paper"),
        row(LONG, "trained", scale=0.01, residuals=True, setting="paper", training=COST),
        row("scs, its defaults", peer=True, setting="paper"),
    ]
    moved = [{**one, "shift": shift} for shift in ("noise x2", "size x2") for one in found if not one["peer"]]
    return found + moved


def printed(renderable: Any, capsys: pytest.CaptureFixture[str]) -> str:
    table.show(renderable)
    return capsys.readouterr().out
