"""The command line: list, solve, check here, the commands that measure and learn in `experiments`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from fixedpoint.cli import experiments
from fixedpoint.cli.common import Family, FamilyError, Seed, Setting, SettingsFile, bar, names_family

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


@app.command("list")
def list_() -> None:
    """Show every plug-in: maps, accelerators, cones and families, what each is, takes and needs."""
    from fixedpoint.experiments.report import plugins
    from fixedpoint.experiments.report.table import show
    from fixedpoint.plugins import entry_points, registry

    for group in (registry.maps, registry.accelerators, registry.cones, registry.families):
        show(plugins.table(group.kind, group.describe(), home=entry_points.DISTRIBUTION))


@app.command()
@names_family
def solve(
    family: Family,
    accelerator: Annotated[str, typer.Option(help="A registered or a trained accelerator.")] = "safeguarded",
    instances: Annotated[int, typer.Option(help="Problems to draw and solve as one batch.", min=1)] = 8,
    tolerance: Annotated[float, typer.Option(help="Residual at which an instance is converged.")] = 1e-6,
    max_evaluations: Annotated[int, typer.Option(help="Most evaluations of the map per instance.", min=1)] = 1000,
    seed: Seed = 0,
    setting: Setting = None,
    settings: SettingsFile = None,
    out: Annotated[Path | None, typer.Option(help="Write the solutions to this .npz file.")] = None,
) -> None:
    """Draw problems from a family and solve them: status, evaluations and residual of every instance.

    Trained weights and tuned settings are used where there are any. Exits with 1 when an instance did not converge.
    """
    import fixedpoint as fp
    from fixedpoint import files
    from fixedpoint.experiments.comparison.compare import configure, settings_file
    from fixedpoint.experiments.evaluation import generator
    from fixedpoint.experiments.report.solutions import save, table
    from fixedpoint.experiments.report.table import show

    if out is not None:
        files.check_file(out)
    bound, method, *_ = configure(family, accelerator, settings_file(family, settings, setting), setting)
    problem = bound.sample(instances, generator=generator(seed, "test"))
    with bar() as shown:
        task = shown.add_task("solving", total=max_evaluations)
        began = time.perf_counter()
        solution = fp.solve(
            bound.map,
            problem,
            method,
            tolerance=tolerance,
            max_evaluations=max_evaluations,
            callback=lambda progress: shown.update(task, completed=progress.evaluations),
        )
        seconds = time.perf_counter() - began
    error = bound.error(problem, solution.output, solution.residual)
    show(table(solution, error, bound.error_kind, seconds))
    if out is not None:
        save(out, solution, error)
        print(f"Solutions: {out}")
    if not bool(solution.converged.all()):
        raise typer.Exit(1)


app.command()(experiments.compare)
app.command()(experiments.tune)
app.command()(experiments.train)


@check_app.command("map")
def check_map(name: Annotated[str, typer.Argument(help="A registered map.")]) -> None:
    """Test a map against the laws of its kind, on instances of every family that uses it."""
    from fixedpoint import checks

    _report([checks.check_registered_map(name)])


@check_app.command("accelerator")
def check_accelerator(
    name: Annotated[str, typer.Argument(help="A registered accelerator, or the file of a trained one.")],
) -> None:
    """Test an accelerator against the laws of its kind."""
    from fixedpoint import checks
    from fixedpoint.plugins import checkpoint, registry

    made = checkpoint.load(name) if name.endswith(checkpoint.SUFFIX) else registry.accelerators.create(name)
    _report([checks.check_accelerator(made, raise_on_failure=False)])


@check_app.command("cone")
def check_cone(name: Annotated[str, typer.Argument(help="A registered cone.")]) -> None:
    """Test a cone's projections and their derivatives on small examples, down to the smallest counterexamples."""
    from fixedpoint.plugins import entry_points, registry

    kind = registry.cones.load(name)
    examples: list[Any] = list(kind.examples()) if hasattr(kind, "examples") else []
    if not examples:
        raise TypeError(f"cone {name!r}: expected a class with `examples()`, as a Cone has, got {kind!r}")
    (checker,) = (point.load() for point in entry_points.of("fixedpoint.checkers") if point.name == "cone")
    _report(checker(cone, raise_on_failure=False) for cone in examples)


def _report(reports: Iterable[Any]) -> None:
    passed = True
    for report in reports:
        print(report, flush=True)
        passed &= report.passed
    if not passed:
        raise typer.Exit(1)


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
    from fixedpoint.plugins.registry import RegistryError

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
        what = str(error) if isinstance(error, FamilyError) else f"{type(error).__name__}: {error}"
        _fail(f"{what} ({DEBUG}=1 in the environment shows where)")
    sys.exit(code or 0)


def _fail(message: str) -> NoReturn:
    if line := " ".join(message.split()):  # no arguments at all: help was shown
        console = Console(stderr=True, emoji=False)  # my_problem.py:family: is no picture
        console.print(f"[bold red]error:[/] {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(2)
