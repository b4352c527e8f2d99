"""Which rows a comparison has: every accelerator with default and tuned settings or with trained weights, then peers.

Where things are found (FAMILY stands for the family's name, my_problem.family for "my_problem.py:family", or
FAMILY.SETTING in a named setting): tuned settings in
./fixedpoint-settings/FAMILY.json, else beside the family's module; trained accelerators in
./fixedpoint-training/FAMILY/NAME/, else in the folder `pretrained/FAMILY` of a package that registers accelerators.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from fixedpoint import checkpoint, composition, tuning
from fixedpoint.evaluation import Peer, Record, fixed_point_residuals, generator, measure, measure_peer, record
from fixedpoint.learned import Learned
from fixedpoint.protocol import Accelerator, ProblemFamily
from fixedpoint.registry import FamilySource, accelerators, families
from fixedpoint.training import train
from fixedpoint.training.run import TRAINED

LOCAL_SETTINGS = Path("fixedpoint-settings")
"""Folder that `fixedpoint tune` writes to and `fixedpoint compare` looks in first."""

LOCAL_TRAINING = Path("fixedpoint-training")
"""Folder that `fixedpoint train` writes to and `fixedpoint compare` looks in first."""

PEER_HORIZON = 400
"""Iterations that a peer may take to reach the smallest target."""

CLASSICAL = ("picard", "anderson-1", "anderson-2")
"""Accelerators that are compared when none are named."""

BASELINE_INSTANCES = 200
"""Training instances of the closed-form starts, which are fitted as they are compared."""


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


class Configured(NamedTuple):
    """A family and an accelerator with the settings to use."""

    family: ProblemFamily
    accelerator: Accelerator
    options: dict[str, Any]
    """{"family": {...}, "accelerator": {...}}; empty for the defaults."""
    training: Mapping[str, Any] | None = None
    """Where the weights come from, if there are any."""


def configure(family: FamilySource, accelerator: str, settings: Path | None, setting: str | None = None) -> Configured:
    """Both as they should be used: trained weights, else tuned settings where the file has them, else the defaults.

    Raises:
        RegistryError: an unknown name; TypeError: a plug-in of another kind; ValueError: a bad settings file or
            checkpoint, an accelerator that refuses the map or was not trained for the family.
    """
    weights = trained_files(family, setting).get(accelerator)
    if weights is not None:
        return _trained(family, weights, setting)
    if _has_weights(accelerator):
        return _fitted(family, accelerator, settings, setting)
    tuned = (
        {} if settings is None else tuning.load(settings, label(family, setting))["accelerators"].get(accelerator, {})
    )
    options = {owner: tuned[owner] for owner in ("family", "accelerator") if owner in tuned}
    try:
        bound = families.create(family, **setting_options(family, setting), **options.get("family", {}))
        method = accelerators.create(accelerator, **options.get("accelerator", {}))
        for name, plugin, kind in ((family, bound, ProblemFamily), (accelerator, method, Accelerator)):
            if not isinstance(plugin, kind):
                raise TypeError(f"{name}: expected a {kind.__name__}, got {plugin!r}")
        method = method.bind(bound.map.signature)
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise ValueError(f"settings file {settings}, {accelerator}: {error}") from error
    return Configured(bound, method, options)


def _trained(family: FamilySource, path: Path, setting: str | None) -> Configured:
    method = checkpoint.load(path)
    found = _family_of(method.provenance, path)
    name = found.get("name")
    told = None if name is None else families.label(name)  # a family object has no name to tell
    if told != (families.label(family) if isinstance(family, str) else None):
        raise ValueError(f"checkpoint {path}: trained on family {told!r}, not {families.label(family)!r}")
    fixed = json.loads(json.dumps(setting_options(family, setting)))
    if wrong := [name for name in fixed if found["options"].get(name) != fixed[name]]:
        given = f"{wrong[0]}={found['options'].get(wrong[0])!r}"
        raise ValueError(f"checkpoint {path}: trained with {given}, not {fixed[wrong[0]]!r} as in {setting!r}")
    bound = families.create(family, **found["options"])
    try:
        method = method.bind(bound.map.signature)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from None
    return Configured(bound, method, {"family": found["options"]}, method.provenance)


def _family_of(provenance: Mapping[str, Any] | None, path: Path) -> dict[str, Any]:
    """The family that a training tells of.

    Raises:
        ValueError: it tells of none, or not all that a table needs.
    """
    told = provenance or {}
    found, plan = told.get("family"), told.get("plan")
    if not isinstance(found, dict) or not isinstance(plan, dict) or not isinstance(found.get("options"), dict):
        raise ValueError(f"checkpoint {path}: it does not say what it was trained on")
    if missing := [name for name in ("minutes", "updates") if name not in told] + [
        name for name in ("instances", "seed") if name not in plan
    ]:
        raise ValueError(f"checkpoint {path}: what it says of its training lacks {', '.join(missing)}")
    return found


def _has_weights(accelerator: str) -> bool:
    """Whether an expression names several accelerators, or a learned one."""
    kinds = [accelerators.load(name) for name in composition.names(accelerator)]
    return len(kinds) > 1 or any(isinstance(kind, type) and issubclass(kind, Learned) for kind in kinds)


def _fitted(family: FamilySource, accelerator: str, settings: Path | None, setting: str | None) -> Configured:
    """A closed-form start, fitted here and now; what needs gradient training is refused."""
    family_options, anderson = starting_point(family, setting, settings)
    given = {"anderson-2": anderson} if "anderson-2" in composition.names(accelerator) else {}
    method = composition.compose(accelerator, given).bind(families.create(family, **family_options).map.signature)
    if isinstance(method, nn.Module) and list(method.parameters()):
        known = ", ".join(trained_files(family, setting)) or "none"
        name = family if isinstance(family, str) else families.label(family)
        where = name if setting is None else f"{name} --setting {setting}"
        raise ValueError(
            f"accelerator {accelerator!r} has not been trained for {label(family, setting)} (trained are: {known}); "
            f"`fixedpoint train {where} {accelerator}` does it"
        )
    named = isinstance(family, str)
    method = train(
        family if named else families.create(family, **family_options),
        accelerator,
        family_options=family_options if named else None,
        options=given,
        instances=BASELINE_INSTANCES,
        evaluations=1,
    )
    bound = families.create(family, **family_options)
    return Configured(bound, method, {"family": family_options, **given}, method.provenance)


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
    learned = [name for name in names if name in trained_files(family, setting) or _has_weights(name)]
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
    options = {**setting_options(family, setting), **row.options.get("family", {}), **_named(family, "shifts", shift)}
    moved: ProblemFamily = families.create(family, **options)
    if differences := moved.map.signature.differences(row.family.map.signature):
        raise ValueError(f"shift {shift!r} of {families.label(family)} changes the map ({'; '.join(differences)})")
    return moved


def compare(
    family: FamilySource,
    names: Sequence[str],
    *,
    instances: int = 64,
    steps: int = 50,
    seed: int = 0,
    settings: Path | None = None,
    setting: str | None = None,
    shifts: Sequence[str] = (),
    report: Callable[[Row, int, int], None] | None = None,
) -> list[Record]:
    """Measure every row on the same held-out instances.

    Args:
        family: registered name, "FILE.py:NAME", or a family.
        names: registered accelerators, and names of trained ones.
        instances: held-out instances (split "test" of `seed`), the batch of our rows.
        steps: evaluations of our rows; a peer runs on until it reaches 1e-4 or 400 iterations.
        seed: whole number >= 0.
        settings: tuned settings to show beside the defaults; None shows defaults only.
        setting: named setting of the family that every row is run in; None leaves the map to each row's settings.
        shifts: shifted distributions of the family that tuned and trained rows are run on too.
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
    problems: dict[tuple[str, str | None], Any] = {}
    records = []
    planned = rows(family, names, settings, setting=setting, shifts=shifts)
    for index, row in enumerate(planned):
        if report is not None:
            report(row, index, len(planned))
        bound = row.family
        key = (bound.form, row.shift)
        if key not in problems:
            problems[key] = bound.sample(instances, generator=generator(seed, "test"))
        problem, residuals = problems[key], None
        if row.peer is not None:
            evaluations, errors, spent = measure_peer(row.peer, problem, steps=steps, horizon=max(steps, PEER_HORIZON))
        else:
            assert row.accelerator is not None
            repeats = 3 if row.shift is None else 1  # of shifted rows only the errors are shown
            errors, spent = measure(bound, row.accelerator, problem, steps=steps, repeats=repeats)
            evaluations = np.arange(1, steps + 1)
            if row.shift is None:
                residuals = fixed_point_residuals(bound, row.accelerator, problem, steps)
        identity: Record = {
            "family": families.label(family),
            "form": bound.form,
            "accelerator": row.name,
            "variant": row.variant,
        }
        identity |= {"peer": row.peer is not None, "seed": seed, "steps": steps, "error": bound.error_kind}
        identity |= {"setting": setting, "shift": row.shift, "training": _told(row.training)}
        records.append(record(identity, evaluations, errors, spent, row.options, residuals))
    return records


def _told(training: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a record says of a training: its cost, and what it was trained on."""
    if training is None:
        return None
    plan = training["plan"]
    return {
        "minutes": training["minutes"],
        "instances": plan["instances"],
        "seed": plan["seed"],
        "updates": training["updates"],
    }
