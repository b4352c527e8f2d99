"""`PAPER.md` and its pictures, from records alone; a problem without a whole run gets no table and no picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.paper import iterates, pictures, rows, store, verdicts
from benchmarks.paper.learning.recipes import RECIPES
from benchmarks.paper.problems import PROBLEMS, RESULTS, PaperProblem
from benchmarks.tables import block
from fixedpoint import files
from fixedpoint.experiments.evaluation import Record
from fixedpoint.experiments.report.style import plain

PAGE = RESULTS.parents[1] / "PAPER.md"
HEAD = """# The paper's experiments in its own setting

Made by `python -m benchmarks.paper report` from the records in `results/paper/`;
`python -m benchmarks.paper PROBLEM` trains, measures and draws. The paper is Venkataraman & Amos,
"Neural Fixed-Point Acceleration for Convex Optimization" (2021).

**Setting.** The paper's problems and sizes in conic form, in the metric of SCS 2 (rho_x = 1e-3,
every R_y = 1, tau factor 1, alpha = 1.5): 50 evaluations; for the elastic net 25 steps of ISTA.
Held-out instances. The residual is the paper's, ||f(v) / tau_f - v / tau_v||_2; the KKT error is
the true one in the original data. An evaluation of the map is an iteration, for every row.

**Rows.** SCS: the plain iteration. SCS's own AA: as the scs package has it; it waits for a full
memory, which takes 55 iterations. AA-I and AA-II: Anderson acceleration at every evaluation, each
with the memory and the starting step that were best on training instances. GRU and LSTM:
Algorithm 1, a learned start and a learned correction of each of the first 20 steps (25 for the
elastic net), then the plain iteration. Coordinate GRU: the same with one small cell that all
coordinates share. Learned rows are under the project's safeguard. What differs from the paper:
minutes of training on a shared core instead of days, corrections that are scaled by the residual,
v accelerated instead of u, and no matrix among the inputs of the start.

**Numbers.** "x1.50": the other row's median is 1.5 times the learned one's. Ahead: by more than
2%."""
PAPERS = frozenset({"GRU", "LSTM"})
"""Learned rows of the paper's kind, whose cells see all coordinates at once."""
SHOWN = ("LSTM", "coordinate GRU")
"""Learned rows whose iterates are drawn, beside the plain ones and those of the best AA."""
COLUMNS = 100
"""Widest line of the page."""


def write(results: Path = RESULTS, page: Path = PAGE) -> list[str]:
    """Write the page and the pictures; returns the problems without a whole run.

    Raises:
        ValueError: no problem has one.
    """
    parts, summaries, missing = [], [], []
    for problem in PROBLEMS.values():
        folder = results / problem.name
        records = store.read(folder / store.NAME)
        run = store.whole(records)
        if not run:
            missing.append(problem.name)
            continue
        stages = curves(of(run, "row"), store.read(folder / store.TRAINING))
        drawn = draw(problem, run, stages, folder)
        parts += section(problem, run, stages, [path.relative_to(results.parents[1]) for path in drawn])
        if half := store.unfinished(records):
            parts.append(f"A newer run is not finished ({half[0]} of {half[1]} records) and not shown.")
        measured = of(run, "row")
        summaries.append(item(f"{problem.name}: {verdicts.summary(problem, measured)}."))
        if PAPERS & {record["row"] for record in measured}:
            its = [record for record in measured if record["kind"] != "neural" or record["row"] in PAPERS]
            summaries.append(item(f"{problem.name}, GRU and LSTM alone: {verdicts.summary(problem, its)}."))
    if not parts:
        raise ValueError(f"{results}: no run is whole; `python -m benchmarks.paper lasso` makes one")
    if missing:
        summaries.append(item(f"Not measured yet: {', '.join(missing)}."))
    verdict = "**In short** (the best learned row against all classical ones, medians):\n\n" + "\n".join(summaries)
    files.write_text(page, "\n\n".join([HEAD, verdict, *map(wrapped, parts)]) + "\n")
    return missing


def wrapped(part: str) -> str:
    """A paragraph in lines of at most `COLUMNS`; tables, headings and pictures as they are."""
    return part if part.startswith(("```", "#", "!")) else textwrap.fill(part, COLUMNS, break_on_hyphens=False)


def item(text: str) -> str:
    """A list item in lines of at most `COLUMNS`."""
    return textwrap.fill(text, COLUMNS, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def of(run: Sequence[Record], part: str) -> list[Record]:
    """The records of one part."""
    return [record for record in run if record["part"] == part]


def draw(problem: PaperProblem, run: Sequence[Record], stages: Sequence[Sequence[Record]], folder: Path) -> list[Path]:
    """All pictures of a run that is whole; the files."""
    measured = of(run, "row")
    main = [record for record in measured if record["kind"] != "ablation"]
    made = [folder / "convergence.png"]
    pictures.convergence(problem, main, made[0])
    if any(record["kind"] == "ablation" for record in measured):
        chosen = [record for record in measured if record["kind"] in ("ablation", "plain")]
        made.append(folder / "ablation.png")
        pictures.ablation(problem, chosen, made[-1])
    if stages:
        made.append(folder / "training.png")
        pictures.training(problem, stages, made[-1])
    best = min(of(run, "choice"), key=lambda record: record["score"])["row"]
    shown = ["plain", best, *SHOWN]
    lines = sorted((r for r in of(run, "iterates") if r["row"] in shown), key=lambda r: shown.index(r["row"]))
    (solution,) = of(run, "solution")
    for instance in range(len(solution["entries"])):
        made.append(folder / f"iterates-{instance}.png")
        iterates.draw(problem, lines, solution, instance, made[-1])
    return made


def curves(measured: Sequence[Record], trained: Sequence[Record]) -> list[list[Record]]:
    """For each trained row its stages, the first one first, as far as their curves were kept."""
    known = {record["weights"]: record for record in trained}
    found = []
    for digest in dict.fromkeys(record["weights"] for record in measured if record["weights"]):
        stages: list[Record] = []
        now = known.get(digest)
        while now is not None:
            stages.insert(0, now)
            now = known.get(now["from"])
        if stages:
            found.append(stages)
    return found


def uncurved(measured: Sequence[Record], stages: Sequence[Sequence[Record]]) -> list[str]:
    """Trained rows without a training curve."""
    known = {mine[-1]["weights"] for mine in stages}
    return [record["row"] for record in measured if record["weights"] not in {None, *known}]


def unshipped(problem: PaperProblem, measured: Sequence[Record]) -> list[str]:
    """A sentence that says which weights do not come with the project, and how to make them; none where all do."""
    named = {**rows.NEURAL, **rows.ABLATION}
    missing = [r for r in measured if r["training"] and not RECIPES[problem.name][named[r["row"]]].ships]
    if not missing:
        return []
    minutes = sum(record["training"]["minutes"] for record in missing)
    names = ", ".join(record["row"] for record in missing)
    return [
        f"Weights that do not come with the project: {names}. "
        f"`python -m benchmarks.paper {problem.name} --train-only` trains them, in {minutes:.0f} min here; "
        "interrupted, it goes on."
    ]


def section(
    problem: PaperProblem, run: Sequence[Record], stages: Sequence[Sequence[Record]], drawn: Sequence[Path]
) -> list[str]:
    """Tables, sentences and pictures of a problem."""
    measured = of(run, "row")
    main = [record for record in measured if record["kind"] != "ablation"]
    ablated = [record for record in measured if record["kind"] == "ablation"]
    parts = [f"## {problem.name}", *tables(problem, main), *verdicts.sentences(problem, main)]
    parts.append(" ".join(chosen(record) for record in of(run, "choice")))
    parts.append(" ".join(cost(record) for record in main if record["training"]))
    if unknown := uncurved(main, stages):
        parts.append(
            f"Training curves that were not kept, since the weights came with the project: {', '.join(unknown)}."
        )
    if ablated:
        reference = [record for record in measured if record["kind"] == "plain"]
        parts.append(
            "Ablation: the same short training from the first update on by the paper's loss, the tau-normalised "
            "residual, and by the raw residual ||f(v) - v||; coordinate GRU, without the safeguard, which would hide "
            "what happens. Both were trained with v at whatever length it gets, as in SCS 2; our loop otherwise scales "
            "it to a fixed length before every evaluation, which by itself keeps a loss from being lowered by scale."
        )
        parts += tables(problem, [*reference, *ablated])
        parts.append(" ".join(verdicts.ablation(problem, [*reference, *ablated], 20)))
    parts += unshipped(problem, measured)
    parts += [f"![{path.stem} of {problem.name}]({path})" for path in drawn]
    last = measured[-1]
    versions = ", ".join(f"{package} {version}" for package, version in last["versions"].items())
    parts.append(
        f"{last['instances']} instances, seed {last['seed']}. Revision {last['revision']}; run {last['run']}; "
        f"{versions}."
    )
    return parts


def tables(problem: PaperProblem, records: Sequence[Record]) -> list[str]:
    """A table of the residual and one of the error."""
    return [block(table(problem, records, measure)) for measure in verdicts.MEASURES]


def table(problem: PaperProblem, records: Sequence[Record], measure: str) -> Table:
    """Median / 90th percentile of residual or error at the marks."""
    shown = plain(pictures.titles(problem)[measure])
    shown.add_column("median / 90%", no_wrap=True)
    for mark in problem.marks:
        shown.add_column(f"at {mark}", justify="right", no_wrap=True)
    for record in records:
        cells = []
        for mark in problem.marks:
            two = (verdicts.at(record, measure, mark, quantile) for quantile in ("median", "p90"))
            cells.append(" / ".join("-" if value == float("inf") else f"{value:.1e}" for value in two))
        shown.add_row(pictures.label(problem, record["row"]), *cells)
    return shown


def chosen(record: Record) -> str:
    """The choice of an Anderson row, in words."""
    options, scores = record["options"], record["scores"]
    return (
        f"{record['row']}: memory {options['memory']}, from evaluation {options['start']}, the best of {len(scores)} "
        f"on {record['instances']} training instances."
    )


def cost(record: Record) -> str:
    """What a training was, in words."""
    stages = ", then ".join(
        f"{stage['updates']} updates by {stage['loss']} ({stage['instances']} instances, horizon {stage['horizon']})"
        for stage in record["training"]["stages"]
    )
    return f"{record['row']}: {stages}; {record['training']['minutes']:.0f} min."
