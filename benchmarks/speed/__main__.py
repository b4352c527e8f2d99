"""`python -m benchmarks.speed COMMAND`; see `benchmarks.speed`."""

from __future__ import annotations

import argparse
from pathlib import Path

import benchmarks.speed
from benchmarks import store
from benchmarks.speed import measure, memory, report
from benchmarks.speed.tuning import own, scs_package

RECORDS = store.RESULTS / "engine" / "records.jsonl"


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=benchmarks.speed.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--records", type=Path, default=RECORDS, help="where records are kept (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("run", help="milliseconds per instance, ours and others")
    speed.add_argument("--families", nargs="+", choices=measure.FAMILIES, default=measure.FAMILIES)
    speed.add_argument("--batches", nargs="+", type=int, default=measure.BATCHES)
    speed.add_argument("--targets", nargs="+", type=float, default=measure.TARGETS)
    speed.add_argument("--rounds", type=int, default=measure.ROUNDS)
    search = commands.add_parser("tune", help="settings for the scs package, or ours")
    search.add_argument("families", nargs="*", help=f"of {', '.join(own.TASKS)} (the last with --ours only)")
    search.add_argument("--trials", type=int, default=scs_package.TRIALS)
    search.add_argument("--ours", action="store_true", help="our settings, in settings.json")
    many = commands.add_parser("memory", help="100,000 instances in one call")
    many.add_argument("--counts", nargs="+", type=int, default=memory.COUNTS)
    many.add_argument("--chunk", type=int, default=memory.CHUNK)
    pages = commands.add_parser("report", help="ENGINE.md and its picture, from records alone")
    pages.add_argument("--out", type=Path, default=report.PAGE)
    asked = parser.parse_args()
    if asked.command == "run":
        measure.run(asked.records, asked.families, asked.batches, asked.targets, asked.rounds)
    elif asked.command == "tune":
        known, one = (tuple(own.TASKS), own.run) if asked.ours else (measure.FAMILIES, scs_package.tune)
        if unknown := [family for family in asked.families if family not in known]:
            parser.error(f"tune: expected {', '.join(known)}, got {', '.join(unknown)}")
        for family in asked.families or known:
            one(family, asked.trials)
    elif asked.command == "memory":
        memory.run(asked.records, asked.counts, asked.chunk)
    else:
        report.write(asked.records, asked.out)


if __name__ == "__main__":
    main()
