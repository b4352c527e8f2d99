"""The command line: list, solve, compare, tune, check."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

DEBUG = "FIXEDPOINT_DEBUG"

app = typer.Typer(
    help="Accelerate fixed-point iterations x <- f(x): classical and learned methods, compared honestly.\n\n"
    "Start with `fixedpoint list`, then `fixedpoint compare diabetes-lasso`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
check_app = typer.Typer(help="Test a plug-in against the laws of its kind.", no_args_is_help=True)
app.add_typer(check_app, name="check")

Family = Annotated[str, typer.Argument(help="A registered family of problems; see `fixedpoint list`.")]
Seed = Annotated[int, typer.Option(help="Seed of the instances; tuning and comparing never share an instance.", min=0)]
SettingsFile = Annotated[
    Path | None,
    typer.Option(help="File of tuned settings. By default the family's file in ./fixedpoint-settings, else its own."),
]


@app.command("list")
def list_() -> None:
    """Show every plug-in: maps, accelerators, cones and families, what each is, takes and needs."""
    from fixedpoint import registry
    from fixedpoint.report import plugins
    from fixedpoint.report.table import show

    for group in (registry.maps, registry.accelerators, registry.cones, registry.families):
        show(plugins.table(group.kind, group.describe(), home=registry.DISTRIBUTION))


@app.command()
def solve(
    family: Family,
    accelerator: Annotated[str, typer.Option(help="A registered accelerator.")] = "safeguarded",
    instances: Annotated[int, typer.Option(help="Problems to draw and solve as one batch.", min=1)] = 8,
    tolerance: Annotated[float, typer.Option(help="Residual at which an instance is converged.")] = 1e-6,
    max_evaluations: Annotated[int, typer.Option(help="Most evaluations of the map per instance.", min=1)] = 1000,
    seed: Seed = 0,
    settings: SettingsFile = None,
    out: Annotated[Path | None, typer.Option(help="Write the solutions to this .npz file.")] = None,
) -> None:
    """Draw problems from a family and solve them: status, evaluations and residual of every instance.

    Tuned settings are used where there are any. Exits with 1 when an instance did not converge.
    """
    import fixedpoint as fp
    from fixedpoint import files
    from fixedpoint.comparison import configure, settings_file
    from fixedpoint.evaluation import generator
    from fixedpoint.report.solutions import save, table
    from fixedpoint.report.table import show

    if out is not None:
        files.check_file(out)
    bound, method, _ = configure(family, accelerator, settings_file(family, settings))
    problem = bound.sample(instances, generator=generator(seed, "test"))
    with _bar() as bar:
        task = bar.add_task("solving", total=max_evaluations)
        began = time.perf_counter()
        solution = fp.solve(
            bound.map,
            problem,
            method,
            tolerance=tolerance,
            max_evaluations=max_evaluations,
            callback=lambda progress: bar.update(task, completed=progress.evaluations),
        )
        seconds = time.perf_counter() - began
    error = bound.error(problem, solution.output, solution.residual)
    show(table(solution, error, bound.error_kind, seconds))
    if out is not None:
        save(out, solution, error)
        print(f"Solutions: {out}")
    if not bool(solution.converged.all()):
        raise typer.Exit(1)


@app.command()
def compare(
    family: Family,
    accelerators: Annotated[
        str, typer.Option(help="Registered accelerators, separated by commas.")
    ] = "picard,anderson-1,anderson-2",
    instances: Annotated[int, typer.Option(help="Held-out instances.", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="Evaluations of the map.", min=1)] = 50,
    seed: Seed = 0,
    settings: SettingsFile = None,
    out: Annotated[Path | None, typer.Option(help="Folder for records.jsonl and convergence.png.")] = None,
) -> None:
    """Compare accelerators on held-out instances, with default and tuned settings, beside outside solvers.

    The error is the family's own: for cone programs the true KKT error in the original data. Every row counts
    evaluations of the same map and the milliseconds they took. Outside solvers (dim) are judged by the same referee.
    """
    from fixedpoint import comparison, files
    from fixedpoint.report import plot, records
    from fixedpoint.report.table import comparison as rendered
    from fixedpoint.report.table import show

    folder = Path("results") / family if out is None else out
    files.check_folder(folder)
    tuned = comparison.settings_file(family, settings)
    with _bar() as bar:
        task = bar.add_task("starting", total=None)

        def report(row: Any, index: int, count: int) -> None:
            bar.update(task, description=f"{row.name} ({row.variant})", completed=index, total=count)

        found = comparison.compare(
            family,
            _names(accelerators),
            instances=instances,
            steps=steps,
            seed=seed,
            settings=tuned,
            report=report,
        )
    show(rendered(found))
    print(f"Tuned settings: {tuned or f'none (`fixedpoint tune {family}` finds some)'}")
    print(f"Records: {records.write(folder, found)}")
    try:
        plot.convergence(found, folder / "convergence.png")
    except ModuleNotFoundError:
        print('Plot: none, matplotlib is missing (pip install "fixedpoint-acceleration[plot]")')
    else:
        print(f"Plot: {folder / 'convergence.png'}")


@app.command()
def tune(
    family: Family,
    accelerators: Annotated[
        str, typer.Option(help="Registered accelerators to tune, each for itself, separated by commas.")
    ] = "picard,anderson-1,anderson-2",
    instances: Annotated[int, typer.Option(help="Training instances.", min=1)] = 20,
    steps: Annotated[int, typer.Option(help="Evaluations per trial.", min=1)] = 60,
    trials: Annotated[int, typer.Option(help="Settings to try for each accelerator.", min=10)] = 200,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Settings file; by default fixedpoint-settings/FAMILY.json.")] = None,
) -> None:
    """Choose static settings (the map's and the accelerator's) by evaluations to 1e-3 on training instances.

    This is the classical baseline that everything learned must beat. `fixedpoint compare` shows the result beside the
    defaults. What is tuned already and not tuned again stays in the file.
    """
    from fixedpoint import comparison, files, tuning
    from fixedpoint.evaluation import revision, versions

    path = out or comparison.LOCAL_SETTINGS / f"{family}.json"
    files.check_file(path)
    if path.exists():
        tuning.load(path, family)
    found: list[tuning.Tuned] = []
    for name in _names(accelerators):
        began = time.perf_counter()
        with _bar() as bar:
            task = bar.add_task(name, total=trials)

            def report(trial: int, score: float, bar: Progress = bar, task: Any = task, name: str = name) -> None:
                bar.update(task, completed=trial, description=f"{name}: score {score:.1f}")

            result = tuning.tune(
                family,
                name,
                instances=instances,
                steps=steps,
                trials=trials,
                seed=seed,
                guesses=found,
                report=report,
            )
            found.append(result)
        seconds = time.perf_counter() - began
        budget = {"instances": instances, "steps": steps, "trials": trials, "seed": seed, "seconds": round(seconds, 1)}
        provenance = {**budget, "versions": versions(), "revision": revision()}
        tuning.save(path, family, {name: result}, provenance)
        print(f"{name}: score {result.score:.2f} after {seconds:.0f} s, {result.family} {result.accelerator}")
    print(f"Settings: {path}")


@check_app.command("map")
def check_map(name: Annotated[str, typer.Argument(help="A registered map.")]) -> None:
    """Test a map against the laws of its kind, on instances of every family that uses it."""
    from fixedpoint import checks

    _report([checks.check_registered_map(name)])


@check_app.command("accelerator")
def check_accelerator(name: Annotated[str, typer.Argument(help="A registered accelerator.")]) -> None:
    """Test an accelerator against the laws of its kind."""
    from fixedpoint import checks, registry

    _report([checks.check_accelerator(registry.accelerators.create(name), raise_on_failure=False)])


def _report(reports: list[Any]) -> None:
    for report in reports:
        print(report)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    """Names separated by commas, each once.

    Raises:
        ValueError: there is none.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ValueError("accelerators: expected at least one name")
    return names


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from fixedpoint import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 all is well; 1 not everything converged or passed; 2 it could not be run.

    What the user got wrong ends in one line that names it, not in a traceback.
    """
    from fixedpoint.registry import RegistryError

    try:
        code = app(args=arguments, standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except (RegistryError, ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
        _fail(str(error))
    except Exception as error:
        if hasattr(error, "format_message"):  # what typer's errors of usage have in common in all its versions
            _fail(error.format_message())
        if DEBUG in os.environ:
            raise
        _fail(f"{type(error).__name__}: {error} ({DEBUG}=1 in the environment shows where)")
    sys.exit(code or 0)


def _fail(message: str) -> NoReturn:
    if line := " ".join(message.split()):  # no arguments at all: help was shown
        Console(stderr=True).print(f"[bold red]error:[/] {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(2)
