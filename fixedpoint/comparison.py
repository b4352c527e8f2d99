"""Which rows a comparison has: every accelerator with default and with tuned settings, then the peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fixedpoint import tuning
from fixedpoint.evaluation import Peer, Record, generator, measure, measure_peer, record
from fixedpoint.protocol import Accelerator, ProblemFamily
from fixedpoint.registry import accelerators, families

LOCAL_SETTINGS = Path("fixedpoint-settings")
"""Folder that `fixedpoint tune` writes to and `fixedpoint compare` looks in first."""

PEER_HORIZON = 400
"""Iterations that a peer may take to reach the smallest target."""


class Row(NamedTuple):
    """A row to measure; exactly one of accelerator and peer is given."""

    name: str
    family: ProblemFamily
    options: dict[str, Any]
    accelerator: Accelerator | None = None
    peer: Peer | None = None
    variant: str = "default"


def settings_file(family: str, given: Path | None = None) -> Path | None:
    """The settings file to use: the one given, else the local one, else the shipped one, else None.

    Raises:
        ValueError: the one given does not exist.
    """
    if given is not None:
        if not given.is_file():
            raise ValueError(f"settings: no file {given}")
        return given
    places = [LOCAL_SETTINGS / f"{family}.json"]
    plugin: Any = families.load(family)
    if hasattr(plugin, "tuned_file"):  # a factory ships none
        places.append(plugin.tuned_file())
    return next((path for path in places if path.is_file()), None)


class Configured(NamedTuple):
    """A family and an accelerator with the settings to use."""

    family: ProblemFamily
    accelerator: Accelerator
    options: dict[str, Any]
    """{"family": {...}, "accelerator": {...}}; empty for the defaults."""


def configure(family: str, accelerator: str, settings: Path | None) -> Configured:
    """Both with tuned settings where the file has them for this accelerator, else with their defaults.

    Raises:
        RegistryError: an unknown name; TypeError: a plug-in of another kind; ValueError: a bad settings file, an
            accelerator that refuses the map.
    """
    tuned = {} if settings is None else tuning.load(settings, family)["accelerators"].get(accelerator, {})
    options = {owner: tuned[owner] for owner in ("family", "accelerator") if owner in tuned}
    try:
        bound = families.create(family, **options.get("family", {}))
        method = accelerators.create(accelerator, **options.get("accelerator", {}))
        for name, plugin, kind in ((family, bound, ProblemFamily), (accelerator, method, Accelerator)):
            if not isinstance(plugin, kind):
                raise TypeError(f"{name}: expected a {kind.__name__}, got {plugin!r}")
        method.check(bound.map.signature)
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise ValueError(f"settings file {settings}, {accelerator}: {error}") from error
    return Configured(bound, method, options)


def rows(family: str, names: Sequence[str], settings: Path | None) -> list[Row]:
    """The rows of a comparison, each checked against its map before anything is measured.

    Raises:
        RegistryError, TypeError, ValueError: as `configure`.
    """
    tuned = {} if settings is None else tuning.load(settings, family)["accelerators"]
    found = []
    for variant, file in (("default", None), ("tuned", settings)):
        for name in names:
            if variant == "default" or name in tuned:
                bound, method, options = configure(family, name, file)
                found.append(Row(name, bound, options, accelerator=method, variant=variant))
    plain = found[0].family
    matched = min(found, key=lambda row: tuned[row.name]["score"] if row.variant == "tuned" else math.inf).family
    for bound, peers in ((plain, plain.peers()), (matched, matched.matched_peers())):
        found += [Row(peer.name, bound, dict(peer.settings), peer=peer) for peer in peers]
    return found


def compare(
    family: str,
    names: Sequence[str],
    *,
    instances: int = 64,
    steps: int = 50,
    seed: int = 0,
    settings: Path | None = None,
    report: Callable[[Row, int, int], None] | None = None,
) -> list[Record]:
    """Measure every row on the same held-out instances.

    Args:
        family: registered name.
        names: registered accelerators.
        instances: held-out instances (split "test" of `seed`), the batch of our rows.
        steps: evaluations of our rows; a peer runs on until it reaches 1e-4 or 400 iterations.
        seed: whole number >= 0.
        settings: tuned settings to show beside the defaults; None shows defaults only.
        report: called before each row with (row, index, number of rows).

    Returns:
        One record per row, in the order of `rows`.

    Raises:
        RegistryError, TypeError, ValueError: as `rows`; no names; a size below 1.
    """
    for argument, value in (("instances", instances), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{argument}: expected at least 1, got {value}")
    if not names:
        raise ValueError("names: expected at least one accelerator")
    problems: dict[str, Any] = {}
    records = []
    planned = rows(family, names, settings)
    for index, row in enumerate(planned):
        if report is not None:
            report(row, index, len(planned))
        bound = row.family
        if bound.form not in problems:
            problems[bound.form] = bound.sample(instances, generator=generator(seed, "test"))
        problem = problems[bound.form]
        if row.peer is not None:
            evaluations, errors, spent = measure_peer(row.peer, problem, steps=steps, horizon=max(steps, PEER_HORIZON))
        else:
            assert row.accelerator is not None
            errors, spent = measure(bound, row.accelerator, problem, steps=steps)
            evaluations = np.arange(1, steps + 1)
        identity: Record = {"family": family, "form": bound.form, "accelerator": row.name, "variant": row.variant}
        identity |= {"peer": row.peer is not None, "seed": seed, "steps": steps, "error": bound.error_kind}
        records.append(record(identity, evaluations, errors, spent, row.options))
    return records
