"""A family and an accelerator as they should be used: with trained weights, tuned settings or the defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fixedpoint.experiments import tuning
from fixedpoint.experiments.comparison.places import label, setting_options, starting_point, trained_files
from fixedpoint.learning.learned import Learned
from fixedpoint.learning.training import train
from fixedpoint.plugins import checkpoint, composition
from fixedpoint.plugins.registry import FamilySource, accelerators, families
from fixedpoint.protocol import Accelerator, ProblemFamily

BASELINE_INSTANCES = 200
"""Training instances of the closed-form starts, which are fitted as they are compared."""


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
    if has_weights(accelerator):
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


def has_weights(accelerator: str) -> bool:
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
