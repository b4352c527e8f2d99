"""What the numbers say, in sentences made from them: ahead or not ahead, at every mark, nothing left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.paper.pictures import label, titles
from benchmarks.paper.problems import PaperProblem
from fixedpoint.experiments.evaluation import Record

MEASURES = ("residual", "error")
EVEN = 0.02
"""Medians that differ by less than this share are called even."""


class Verdict(NamedTuple):
    """The best learned row against one other at one mark."""

    mark: int
    learned: str
    other: str
    ratio: float
    """The other's number / the learned one's: above 1 the learned row is ahead; inf where the other has no number."""

    @property
    def ahead(self) -> bool:
        """By more than `EVEN`."""
        return self.ratio > 1 + EVEN


def at(record: Record, measure: str, mark: int, quantile: str = "median") -> float:
    """A number of a row after `mark` evaluations; inf where it is not finite."""
    value = record["curves"][measure][quantile][mark - 1]
    return float("inf") if value is None else float(value)


def verdicts(records: Sequence[Record], measure: str, marks: Sequence[int], quantile: str = "median") -> list[Verdict]:
    """At every mark the best learned row against the plain one and against the best of the other classical ones."""
    learned = [record for record in records if record["kind"] == "neural"]
    plain = [record for record in records if record["kind"] == "plain"]
    classical = [record for record in records if record["kind"] == "classical"]
    found = []
    for mark in marks:
        mine = min(learned, key=lambda r: at(r, measure, mark, quantile))
        for group in (plain, classical):
            other = min(group, key=lambda r: at(r, measure, mark, quantile))
            ours, theirs = at(mine, measure, mark, quantile), at(other, measure, mark, quantile)
            ratio = theirs / ours if ours < float("inf") else 0.0
            found.append(Verdict(mark, mine["row"], other["row"], ratio))
    return found


def sentences(problem: PaperProblem, records: Sequence[Record]) -> list[str]:
    """A paragraph for each measure: where the best learned row is ahead, and where it is not."""
    found = []
    for measure in MEASURES:
        parts = []
        for mark in problem.marks:
            two = [v for v in verdicts(records, measure, problem.marks) if v.mark == mark]
            parts.append(f"at {mark}, {two[0].learned} {_against(problem, two)}")
        title = titles(problem)[measure]
        tail = won(problem, records, measure, "p90")
        found.append(f"By {title}: {'; '.join(parts)}. By its 90th percentile some learned row is {tail}.")
    return found


def won(problem: PaperProblem, records: Sequence[Record], measure: str, quantile: str = "median") -> str:
    """At which marks some learned row is ahead of everything else, and at which none is."""
    every = verdicts(records, measure, problem.marks, quantile)
    there = [str(mark) for mark in problem.marks if all(v.ahead for v in every if v.mark == mark)]
    lost = [str(mark) for mark in problem.marks if str(mark) not in there]
    return ", ".join(
        [f"ahead at {', '.join(there)}" if there else "nowhere ahead"]
        + ([f"not ahead at {', '.join(lost)}"] if there and lost else [])
    )


def summary(problem: PaperProblem, records: Sequence[Record]) -> str:
    """One line: at which marks some learned row is ahead of everything else, by each measure."""
    return "; ".join(
        f"{titles(problem)[measure].split(',')[0]}: {won(problem, records, measure)}" for measure in MEASURES
    )


def ablation(problem: PaperProblem, records: Sequence[Record], mark: int) -> list[str]:
    """What the training without tau-normalisation brings, against the same with it; none without such rows."""
    rows = {record["row"]: record for record in records}
    names = ("residual", "raw residual")
    if not all(name in rows for name in names):
        return []
    found = []
    for measure in MEASURES:
        with_it, without = (at(rows[name], measure, mark) for name in names)
        plain = at(rows["plain"], measure, mark)
        title = titles(problem)[measure].split(",")[0]
        if without > with_it * (1 + EVEN):
            says = f"{_times(without / with_it)} worse"
        elif with_it > without * (1 + EVEN):
            says = f"{_times(with_it / without)} better: here the normalisation is not what helps"
        else:
            says = "the same"
        beside = "behind" if without > plain * (1 + EVEN) else "not behind"
        found.append(
            f"At {mark} evaluations the median {title} is {_shown(without)} when trained without tau-normalisation and "
            f"{_shown(with_it)} with it, {says}; without it the row is {beside} {label(problem, 'plain')} "
            f"({_shown(plain)})."
        )
    return found


def _against(problem: PaperProblem, two: Sequence[Verdict]) -> str:
    plain, classical = two
    names = [label(problem, v.other) for v in (plain, classical)]
    if plain.ahead and classical.ahead:
        return f"is ahead of {names[0]} ({_factor(plain)}) and of the best AA, {names[1]} ({_factor(classical)})"
    if plain.ahead:
        return f"is ahead of {names[0]} ({_factor(plain)}), not ahead of {names[1]} ({_factor(classical)})"
    if classical.ahead:
        return f"is ahead of {names[1]} ({_factor(classical)}), not ahead of {names[0]} ({_factor(plain)})"
    return f"is ahead neither of {names[0]} ({_factor(plain)}) nor of {names[1]} ({_factor(classical)})"


def _factor(verdict: Verdict) -> str:
    """How many times smaller the learned median is."""
    return f"x{verdict.ratio:.{1 if verdict.ratio >= 9.95 else 2}f}"


def _times(ratio: float) -> str:
    return "infinitely" if ratio == float("inf") else f"{ratio:.3g} times"


def _shown(value: float) -> str:
    return "not finite" if value == float("inf") else f"{value:.1e}"
