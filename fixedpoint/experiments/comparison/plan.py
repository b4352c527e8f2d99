"""The rows of a comparison: every accelerator with default and tuned settings or trained weights; peers; shifts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fixedpoint.experiments import tuning
from fixedpoint.experiments.comparison.configuration import configure, has_weights
from fixedpoint.experiments.comparison.places import label, setting_options, shift_options, trained_files
from fixedpoint.experiments.evaluation import Peer
from fixedpoint.plugins.registry import FamilySource, families
from fixedpoint.protocol import Accelerator, ProblemFamily


class Row(NamedTuple):
    """A row to measure; exactly one of accelerator and peer is given."""

    name: str
    family: ProblemFamily
    options: dict[str, Any]
    accelerator: Accelerator | None = None
    peer: Peer | None = None
    variant: str = "default"
    """"default", "tuned" or "trained"."""
    training: Mapping[str, Any] | None = None
    shift: str | None = None


def rows(
    family: FamilySource,
    names: Sequence[str],
    settings: Path | None,
    *,
    setting: str | None = None,
    shifts: Sequence[str] = (),
) -> list[Row]:
    """The rows of a comparison, each checked against its map before anything is measured.

    Raises:
        RegistryError, TypeError, ValueError: as `configure`; an unknown shift, or one that changes the map.
    """
    tuned = {} if settings is None else tuning.load(settings, label(family, setting))["accelerators"]
    learned = [name for name in names if name in trained_files(family, setting) or has_weights(name)]
    found = []
    for variant, file in (("default", None), ("tuned", settings)):
        for name in names:
            if name not in learned and (variant == "default" or name in tuned):
                made = configure(family, name, file, setting)
                found.append(Row(name, made.family, made.options, accelerator=made.accelerator, variant=variant))
    for name in learned:
        made = configure(family, name, settings, setting)
        found.append(Row(name, made.family, made.options, made.accelerator, variant="trained", training=made.training))
    shifted = [
        row._replace(family=_shifted(family, row, setting, shift), shift=shift)
        for shift in shifts
        for row in found
        if row.variant != "default" or row.name not in tuned
    ]
    plain = found[0].family
    matched = min(found, key=lambda row: tuned[row.name]["score"] if row.variant == "tuned" else math.inf).family
    for bound, peers in ((plain, plain.peers()), (matched, matched.matched_peers())):
        found += [Row(peer.name, bound, dict(peer.settings), peer=peer) for peer in peers]
    return found + shifted


def _shifted(family: FamilySource, row: Row, setting: str | None, shift: str) -> ProblemFamily:
    options = {**setting_options(family, setting), **row.options.get("family", {}), **shift_options(family, shift)}
    moved: ProblemFamily = families.create(family, **options)
    if differences := moved.map.signature.differences(row.family.map.signature):
        raise ValueError(f"shift {shift!r} of {families.label(family)} changes the map ({'; '.join(differences)})")
    return moved
