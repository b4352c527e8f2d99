"""The paper's experiments: runs are never mixed or half drawn, and every sentence follows from the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import benchmarks.store as shared_store
from benchmarks.paper import anderson, measure, quantities, report, store
from benchmarks.paper.problems import PROBLEMS
from fixedpoint import accelerators, families, unroll
from fixedpoint.experiments.evaluation import Record, evaluations_to, fixed_point_residuals, generator, trace
from tests.benchmarks.paper.papers import CLASSICAL, NET, everything, quick

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")


def run(folder: Path, **options: Any) -> list[str]:
    said: list[str] = []
    measure.run(NET, {}, folder, **{"instances": 6, "say": said.append, **options})
    return said


def test_a_second_run_measures_nothing_again(tmp_path: Path) -> None:
    assert len(run(tmp_path)) == 2 + 1 + 2 * len(CLASSICAL)
    before = (tmp_path / store.NAME).read_bytes()
    assert run(tmp_path) == ["elastic-net: all rows known"]
    assert (tmp_path / store.NAME).read_bytes() == before


def test_an_interrupted_run_goes_on_and_is_not_whole_before(tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / store.NAME
    whole = store.whole(everything(tmp_path))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:-30])  # killed while it wrote the last record
    assert store.whole(everything(tmp_path)) == []
    assert store.unfinished(everything(tmp_path)) == (len(lines) - 2, len(lines) - 1)
    assert len(run(tmp_path)) == 1
    assert store.whole(everything(tmp_path)) == whole
    assert store.unfinished(everything(tmp_path)) is None


@pytest.mark.parametrize("what", ["source", "instances", "versions"])
def test_two_runs_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    run(tmp_path)
    first = store.whole(everything(tmp_path))
    if what == "source":
        monkeypatch.setattr(shared_store, "source", lambda: "edited")
    if what == "versions":
        monkeypatch.setattr(shared_store, "versions", lambda packages: {"torch": "another"})
    calls = 0

    def dies(*given: Any) -> quantities.Quantities:
        nonlocal calls
        calls += 1
        if calls == 6:  # four for the choices, the plain row, then AA-I
            raise KeyboardInterrupt
        return real(*given)

    real = quantities.quantities
    other = 5 if what == "instances" else 6
    with monkeypatch.context() as patch:
        patch.setattr(quantities, "quantities", dies)
        patch.setattr(anderson, "quantities", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, instances=other)
    assert store.whole(everything(tmp_path)) == first, "the newer run is not whole"
    assert store.unfinished(everything(tmp_path)) is not None
    run(tmp_path, instances=other)
    second = store.whole(everything(tmp_path))
    assert {record["run"] for record in second}.isdisjoint(record["run"] for record in first)
    assert len({record["run"] for record in second}) == 1
    assert [store.key(record) for record in second] == [store.key(record) for record in first]


def test_a_half_finished_record_set_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PROBLEMS", {"elastic-net": NET})
    folder, page = tmp_path / "results" / "paper" / "elastic-net", tmp_path / "PAPER.md"
    run(folder)
    records = everything(folder)
    (folder / store.NAME).unlink()
    store.append(folder / store.NAME, records[:-1])
    with pytest.raises(ValueError, match="no run is whole"):
        report.write(tmp_path / "results" / "paper", page)
    assert sorted(path.name for path in folder.iterdir()) == [store.NAME]
    assert not page.exists()
    store.append(folder / store.NAME, records[-1:])
    # without learned rows there is nothing to judge: they get the numbers of the plain one, halved
    learned = [dict(r, row="GRU", kind="neural", weights=None) for r in records if r.get("row") == "plain"]
    plan = next(r for r in records if r["part"] == "plan")
    for record in learned:
        if record["part"] == "row":
            record["curves"] = {
                name: {q: [v / 2 for v in values] for q, values in curve.items()}
                for name, curve in record["curves"].items()
            }
            record["training"] = {"minutes": 1.0, "stages": []}
    keys = [*plan["keys"], *map(store.key, learned)]
    store.append(folder / store.NAME, [*learned, {**plan, "keys": keys}])
    assert report.write(tmp_path / "results" / "paper", page) == []
    text = page.read_text()
    assert max(len(line) for line in text.splitlines() if not line.startswith("!")) <= 100
    drawn = {path.name for path in folder.iterdir()} - {store.NAME}
    assert drawn == {"convergence.png", "iterates-0.png", "iterates-1.png"}
    assert all(f"results/paper/elastic-net/{name}" in text for name in drawn)
    assert "ahead of ISTA (x2.00)" in text
    assert "Weights that do not come with the project: GRU." in text


def test_the_page_says_how_to_make_what_does_not_ship() -> None:
    def row(name: str, minutes: float | None) -> Record:
        return {"row": name, "training": None if minutes is None else {"minutes": minutes}}

    measured = [row("plain", None), row("GRU", 20.0), row("coordinate GRU", 30.0)]
    ablated = [row("coordinate GRU, bare", 30.0), row("residual", 0.9), row("raw residual", 1.3)]
    (said,) = report.unshipped(PROBLEMS["elastic-net"], measured)
    assert "GRU, coordinate GRU. `python -m benchmarks.paper elastic-net --train-only` trains them, in 50 min" in said
    assert report.unshipped(PROBLEMS["lasso"], measured) == []
    (said,) = report.unshipped(PROBLEMS["lasso"], [*measured, *ablated])
    assert ": residual, raw residual. " in said
    assert "in 2 min" in said


def test_the_choice_is_the_best_of_the_grid_on_training_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    family, seen = NET.bound(), []

    def fake(family: Any, method: Any, instances: Any, steps: int) -> quantities.Quantities:
        seen.append(instances)
        size = np.full((steps, 4), 0.5 if method.memory == 5 else 0.7)
        return {"residual": size, "error": size}

    monkeypatch.setattr(anderson, "quantities", fake)
    choice = anderson.choose(NET, "anderson-2")
    assert choice["options"] == {"memory": 5, "start": 0}
    assert [one["memory"] for one in choice["scores"]] == [2, 5]
    expected = family.sample(4, generator=generator(0, "train"))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(seen[0], expected, strict=True))


def test_quantities_are_those_of_the_evaluation_protocol() -> None:
    family = families.create("lasso", form="conic", rho_x=1e-3, scale=1.0)
    problem = family.sample(3, generator=generator(0, "test"))
    method = accelerators.create("anderson-2", memory=5)
    found = quantities.quantities(family, method, problem, 6)
    assert np.allclose(found["error"], trace(family, method, problem, 6)[0].numpy(), rtol=1e-9)
    assert np.allclose(found["residual"], fixed_point_residuals(family, method, problem, 6), rtol=1e-9)
    assert (found["primal"] <= found["error"]).all()
    assert (found["dual"] <= found["error"]).all()
    assert found["primal"].max() > 0


def test_quantities_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    family = NET.bound()
    problem = family.sample(5, generator=generator(0, "test"))
    method = accelerators.create("picard")
    whole = quantities.quantities(family, method, problem, 4)
    monkeypatch.setattr(quantities, "CHUNK", 2)
    for name, values in quantities.quantities(family, method, problem, 4).items():
        assert np.allclose(values, whole[name], rtol=1e-12)


def test_a_curve_says_what_was_lost() -> None:
    values = np.array([[1.0, 2.0, np.inf], [1.0, np.inf, np.inf]])
    assert quantities.curve(values) == {"p10": [1.0, 1.0], "median": [2.0, None], "p90": [None, None]}
    assert np.isinf(evaluations_to(0.5, np.array([1, 2]), values)).all()


def test_iterates_are_entries_of_single_instances() -> None:
    family = NET.bound()
    problem = family.sample(2, generator=generator(0, "test"))
    lines = quantities.iterates(family, accelerators.create("picard"), problem, 3, [[[4, 0]], [[7]]])
    path = unroll(family.map, problem, None, 3).output
    assert lines[0][0][1] == pytest.approx(path[:, 0, 0].tolist(), rel=1e-5)
    assert lines[1][0][0] == pytest.approx(path[:, 1, 7].tolist(), rel=1e-5)
