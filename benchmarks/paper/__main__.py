"""`python -m benchmarks.paper COMMAND`; see `benchmarks.paper`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import benchmarks.paper
from benchmarks.paper import measure, report
from benchmarks.paper.learning import training
from benchmarks.paper.problems import INSTANCES, PROBLEMS, RESULTS


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=benchmarks.paper.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where records are kept (default: %(default)s)")
    parser.add_argument("--page", type=Path, default=report.PAGE, help="what is written (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in PROBLEMS:
        one = commands.add_parser(name, help="train what is missing, measure, draw")
        one.add_argument("--instances", type=int, default=INSTANCES, help="held out (default: %(default)s)")
        one.add_argument("--train-only", action="store_true", help="stop after the training")
    commands.add_parser("report", help="the page and the pictures, from records alone")
    asked = parser.parse_args()
    if asked.command != "report":
        problem, say = PROBLEMS[asked.command], partial(print, flush=True)
        weights = training.weights(problem, asked.results / problem.name, say)
        if asked.train_only:
            return
        measure.run(problem, weights, asked.results / problem.name, asked.instances, say)
    missing = report.write(asked.results, asked.page)
    print(f"{asked.page} is written" + (f"; not measured yet: {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    main()
