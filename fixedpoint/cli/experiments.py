"""The commands that measure and learn: compare, tune, train."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from fixedpoint.cli.common import Family, Seed, Setting, SettingsFile, bar, names, names_family


@names_family
def compare(
    family: Family,
    accelerators: Annotated[
        str | None,
        typer.Option(
            help="Registered or trained accelerators, separated by commas; without it picard, anderson-1, anderson-2 "
            "and everything trained for the family."
        ),
    ] = None,
    instances: Annotated[int, typer.Option(help="Held-out instances.", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="Evaluations of the map.", min=1)] = 50,
    seed: Seed = 0,
    setting: Setting = None,
    shifts: Annotated[
        str | None, typer.Option(help="Shifted distributions to show too, separated by commas; 'all' for every one.")
    ] = None,
    settings: SettingsFile = None,
    out: Annotated[Path | None, typer.Option(help="Folder for records.jsonl and convergence.png.")] = None,
) -> None:
    """Compare accelerators on held-out instances, with default and tuned settings or trained, beside outside solvers.

    The error is the family's own: for cone programs the true KKT error in the original data. Every row counts
    evaluations of the same map and the milliseconds they took. Outside solvers (dim) are judged by the same referee.
    """
    from fixedpoint import files
    from fixedpoint.experiments.comparison import compare
    from fixedpoint.experiments.report import plot, records
    from fixedpoint.experiments.report.table import comparison as rendered
    from fixedpoint.experiments.report.table import show
    from fixedpoint.plugins.registry import families

    folder = Path("results") / compare.label(family, setting) if out is None else out
    files.check_folder(folder)
    tuned = compare.settings_file(family, settings, setting)
    trained = compare.trained_files(family, setting)
    chosen = [*compare.CLASSICAL, *trained] if accelerators is None else names(accelerators)
    known = getattr(families.load(family), "shifts", {})  # a factory has none
    moved = list(known) if shifts == "all" else [] if shifts is None else names(shifts, "shifts")
    with bar() as shown:
        task = shown.add_task("starting", total=None)

        def report(row: Any, index: int, count: int) -> None:
            shown.update(task, description=f"{row.name} ({row.variant})", completed=index, total=count)

        found = compare.compare(
            family,
            chosen,
            instances=instances,
            steps=steps,
            seed=seed,
            settings=tuned,
            setting=setting,
            shifts=moved,
            report=report,
        )
    show(rendered(found))
    where = _where(family, setting)
    print(f"Tuned settings: {tuned or f'none (`fixedpoint tune {where}` finds some)'}")
    if not trained:
        print(f"Trained accelerators: none (`fixedpoint train {where} gru+anderson-2` trains one)")
    print(f"Records: {records.write(folder, found)}")
    try:
        plot.convergence(found, folder / "convergence.png")
    except ModuleNotFoundError:
        print('Plot: none, matplotlib is missing (pip install "fixedpoint-acceleration[plot]")')
    else:
        print(f"Plot: {folder / 'convergence.png'}")


@names_family
def tune(
    family: Family,
    accelerators: Annotated[
        str, typer.Option(help="Registered accelerators to tune, each for itself, separated by commas.")
    ] = "picard,anderson-1,anderson-2",
    instances: Annotated[int, typer.Option(help="Training instances.", min=1)] = 20,
    steps: Annotated[int, typer.Option(help="Evaluations per trial.", min=1)] = 60,
    trials: Annotated[int, typer.Option(help="Settings to try for each accelerator.", min=10)] = 200,
    seed: Seed = 0,
    setting: Setting = None,
    out: Annotated[Path | None, typer.Option(help="Settings file; by default fixedpoint-settings/FAMILY.json.")] = None,
) -> None:
    """Choose static settings (the map's and the accelerator's) by evaluations to 1e-3 on training instances.

    This is the classical baseline that everything learned must beat. `fixedpoint compare` shows the result beside the
    defaults. What is tuned already and not tuned again stays in the file. With a named setting the map is given and
    only the accelerator's own settings are chosen.
    """
    from fixedpoint import files
    from fixedpoint.experiments import tuning
    from fixedpoint.experiments.comparison import compare
    from fixedpoint.experiments.evaluation import revision, versions

    name = compare.label(family, setting)
    path = out or compare.LOCAL_SETTINGS / f"{name}.json"
    files.check_file(path)
    if path.exists():
        tuning.load(path, name)
    fixed = None if setting is None else compare.setting_options(family, setting)
    found: list[tuning.Tuned] = []
    for accelerator in names(accelerators):
        began = time.perf_counter()
        with bar() as shown:
            task = shown.add_task(accelerator, total=trials)

            def report(
                trial: int, score: float, shown: Progress = shown, task: Any = task, accelerator: str = accelerator
            ) -> None:
                shown.update(task, completed=trial, description=f"{accelerator}: score {score:.1f}")

            result = tuning.tune(
                family,
                accelerator,
                instances=instances,
                steps=steps,
                trials=trials,
                seed=seed,
                guesses=found,
                fixed=fixed,
                report=report,
            )
            found.append(result)
        seconds = time.perf_counter() - began
        budget = {"instances": instances, "steps": steps, "trials": trials, "seed": seed, "seconds": round(seconds, 1)}
        provenance = {**budget, "versions": versions(), "revision": revision()}
        tuning.save(path, name, {accelerator: result}, provenance)
        print(f"{accelerator}: score {result.score:.2f} after {seconds:.0f} s, {result.family} {result.accelerator}")
    print(f"Settings: {path}")


@names_family
def train(
    family: Family,
    accelerator: Annotated[
        str,
        typer.Argument(help="Registered names joined by '+', each for its turn: gru, warm-start+anderson-2, ..."),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME.KEY=VALUE sets an argument of a part of the accelerator (gru.hidden=64), KEY=VALUE a field of "
            "the plan that has no option here (clip=0.5). Repeatable.",
        ),
    ] = None,
    loss: Annotated[str, typer.Option(help="residual, log-residual, solution or log-error.")] = "log-error",
    weights: Annotated[str, typer.Option(help="Weights of the steps: late, even or last.")] = "late",
    horizon: Annotated[int, typer.Option(help="Evaluations to unroll.")] = 20,
    updates: Annotated[int, typer.Option(help="Steps of the optimiser.")] = 500,
    instances: Annotated[int, typer.Option(help="Training instances.")] = 500,
    batch: Annotated[int, typer.Option(help="Instances in an update.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="At first; it falls along a cosine.")] = 1e-3,
    seed: Seed = 0,
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights to go on from: a file of this accelerator, trained before.")
    ] = None,
    setting: Setting = None,
    settings: SettingsFile = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; by default fixedpoint-training/FAMILY/NAME.")
    ] = None,
) -> None:
    """Train a learned accelerator on a family of problems; `fixedpoint compare` shows it from then on.

    It works with the tuned settings of anderson-2 where the family has them (or in a named setting), since that is what
    learning must add to. A run that was interrupted goes on when the same command is given again. The accelerator is
    trained for its validation score: evaluations to 1e-3.
    """
    from fixedpoint.experiments.comparison import compare
    from fixedpoint.learning import training
    from fixedpoint.plugins import checkpoint, composition

    file = compare.settings_file(family, settings, setting)
    family_options, anderson = compare.starting_point(family, setting, file)
    parts, plan = _options(option or [])
    own = ("loss", "weights", "horizon", "updates", "instances", "batch", "learning_rate", "seed")
    if doubled := [name for name in own if name in plan]:
        raise ValueError(f"option: {doubled[0]} has an option of its own, --{doubled[0].replace('_', '-')}")
    accelerator = "+".join(composition.names(accelerator))
    if "anderson-2" in composition.names(accelerator):
        parts["anderson-2"] = {**anderson, **parts.get("anderson-2", {})}
    folder = out or compare.LOCAL_TRAINING / compare.label(family, setting) / accelerator
    with bar() as shown:
        task = shown.add_task(f"{accelerator}: preparing", total=updates)

        def report(now: training.Report) -> None:
            reached = "" if now.evaluations is None else f", evaluations to 1e-3 {now.evaluations:g}"
            shown.update(
                task,
                completed=now.update,
                total=now.updates,
                description=f"{accelerator}: loss {now.loss:.3f}{reached}",
            )

        trained = training.train(
            family,
            accelerator if start is None else checkpoint.load(start),
            family_options=family_options,
            options=parts if start is None else None,
            out=folder,
            report=report,
            loss=loss,
            weights=weights,
            horizon=horizon,
            updates=updates,
            instances=instances,
            batch=batch,
            learning_rate=learning_rate,
            seed=seed,
            **plan,
        )
    told = trained.provenance or {}
    print(
        f"{accelerator}: {told['updates']} updates in {told['minutes']:.1f} min, best at {told['best_update']}, "
        f"validation score {told['score']:.2f}"
    )
    print(f"Weights: {folder / training.TRAINED}")
    print(f"Compare: fixedpoint compare {_where(family, setting)}")


def _where(family: str, setting: str | None) -> str:
    return family if setting is None else f"{family} --setting {setting}"


def _options(given: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """(arguments of the parts by name, fields of the plan) from "gru.hidden=64" and "clip=0.5".

    Raises:
        ValueError: something without "=".
    """
    parts: dict[str, dict[str, Any]] = {}
    plan: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"option: expected NAME.KEY=VALUE or KEY=VALUE, got {text!r}")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value  # a word: base=anderson-2
        part, dot, argument = key.strip().rpartition(".")
        if dot:
            parts.setdefault(part, {})[argument] = parsed
        else:
            plan[argument] = parsed
    return parts, plan
