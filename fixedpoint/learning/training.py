"""Training: from a family of problems and a learned accelerator to weights that anybody can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fixedpoint import files
from fixedpoint.experiments.evaluation import generator, revision, versions
from fixedpoint.learning.plan import Plan
from fixedpoint.learning.run_folder import TRAINED, Folder
from fixedpoint.learning.trainer import Report, Trainer, TrainingError
from fixedpoint.plugins import checkpoint, composition
from fixedpoint.plugins.registry import families
from fixedpoint.protocol import Accelerator, ProblemFamily
from fixedpoint.tensors import pytrees

__all__ = ["TRAINED", "Plan", "Report", "TrainingError", "train"]


def train(
    family: str | ProblemFamily,
    accelerator: str | Accelerator,
    *,
    family_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | Path | None = None,
    report: Callable[[Report], Any] | None = None,
    **plan: Any,
) -> Accelerator:
    """Train a learned accelerator on a family of problems.

    Args:
        family: a registered name, or a family.
        accelerator: an expression of registered names such as "gru" or "warm-start+anderson-2" (then it is trained
            inside a safeguard that stands aside meanwhile), or an accelerator, trained as it is: in place, if it was
            built. One that was trained before keeps the normalisation of its inputs.
        family_options: constructor arguments of a family given by name, its map's settings among them.
        options: constructor arguments of the parts of an expression, by name: {"gru": {"hidden": 64}}.
        out: the run's folder (see `fixedpoint.learning.run_folder`); an interrupted run goes on. None: no files.
        report: called after every update with a `Report`.
        **plan: fields of `Plan`: loss, horizon, updates, batch, instances, learning_rate, seed, ...

    Returns:
        The accelerator with the weights of the best validation, its `provenance` filled in.

    Raises:
        ValueError: arguments out of range, an accelerator with nothing to learn, a loss that needs solutions the
            family does not have, a folder of another run.
        TypeError: unknown fields of the plan.
        TrainingError: a loss that is not finite.
    """
    asked = Plan(**plan)
    settings = dict(family_options or {})
    named = {"name": family if isinstance(family, str) else None, "options": settings}
    if isinstance(family, str):
        family = families.create(family, **settings)
    elif family_options:
        raise ValueError("family_options: these belong to a family given by name")
    if not isinstance(family, ProblemFamily):
        raise TypeError(f"family: expected a ProblemFamily or a registered name, got {family!r}")
    if isinstance(accelerator, str):
        accelerator = composition.compose(accelerator, options)
    elif options:
        raise ValueError("options: these belong to an accelerator given by name")
    if not isinstance(accelerator, Accelerator):
        raise TypeError(
            f"accelerator: expected an Accelerator or an expression of registered names, got {accelerator!r}"
        )
    bound = accelerator.bind(family.map.signature)
    folder = None
    if out is not None:
        described = composition.describe(bound)
        content = {"family": named, "signature": family.map.signature.hash, **described, "plan": asked.to_json()}
        sample = family.sample(2, generator=generator(asked.seed, "train"))  # a family object has no name to compare
        content["instances"] = files.digest("", pytrees.tensors(sample))
        if bound.provenance is not None:
            content["from"] = checkpoint.digest(bound)
        folder = Folder(Path(out), content)
    before = bound.provenance or {}
    trainer = Trainer(family, bound, asked, folder, report)
    trained = trainer.run()
    progress = trainer.progress
    trained.provenance = {
        "family": named,
        "plan": asked.to_json(),
        "updates": progress.update,
        "best_update": progress.best_update,
        "score": progress.best,
        "minutes": round(progress.seconds / 60 + before.get("minutes", 0.0), 3),
        "versions": versions(),
        "revision": revision(),
    } | ({"before": dict(before)} if before else {})
    if folder is not None:
        checkpoint.save(trained, folder.path / TRAINED)
    return trained
