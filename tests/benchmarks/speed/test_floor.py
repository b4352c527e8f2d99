"""The profile: pieces by public method and file, and floors that come from records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import store
from benchmarks.speed import floor
from benchmarks.speed.pieces import LOOP, SETUP, Pieces, entered
from maps.scs import solve
from tests.benchmarks.speed.toys import OURS, box

CORE = {
    "threads": 1,
    "gflops": {"float64": {"128 x 200 x 200": 50.0}},
    "gbs": {"L2": {"read": 50.0, "copy": 100.0}, "L3": {"read": 50.0, "copy": 100.0}},
    "us_per_operation": 1.0,
}


def test_every_second_and_operation_belongs_to_a_piece() -> None:
    options: dict[str, Any] = {"adaptive_scale": False, "eps_abs": 0.0, "eps_rel": 0.0, "max_evaluations": 5}
    with Pieces() as timed:
        solve(box(4), "anderson-2", **options)
    with Pieces(count=True) as counted:
        solve(box(4), "anderson-2", **options)
    pieces = {"linear system", "projection", "tau", "retract", "accelerator", "checks", SETUP, LOOP, "rest of the map"}
    assert set(timed.seconds) == pieces
    assert all(seconds > 0 for seconds in timed.seconds.values())
    assert counted.counts["linear system"]["flops"] >= 5 * 4 * 2 * (3 * 3)
    assert counted.counts["projection"]["operations"] >= 5


def test_pieces_nest() -> None:
    assert entered("accelerator", "/maps/cones/psd.py", "project") == "accelerator"
    assert entered("rest of the map", "/maps/cones/psd.py", "project") == "projection"
    assert entered(LOOP, "/accelerators/anderson.py", "step") == "accelerator"


def test_records_become_tables(tmp_path: Path) -> None:
    found = floor.measured(box(4), OURS, CORE, CORE, 3)
    identity = {"family": "box", "form": "quadratic", "solver": "fixedpoint", "variant": "picard"}
    origin = {"run": "r", "revision": "v", "cpu": "c", "torch_threads": 1, "versions": {}}
    path = tmp_path / "records.jsonl"
    assert floor.section(path) == []
    machine = {"part": "machine", "family": None, "rates": {"1": CORE}, **origin}
    store.append(path, [machine, {"part": "floor", **identity, "batch": 4, "evaluations": 3, **found, **origin}])
    text = "\n".join(floor.section(path))
    assert "native fused loop" in text
    assert max(len(line) for block in text.split("```")[1::2] for line in block.splitlines()) <= 100


def test_the_native_floor_counts_what_is_there() -> None:
    plain = floor.native(box(4), OURS)
    remembering = floor.native(box(4), {**OURS, "options": {"memory": 5}})
    assert plain.factor >= 3 + 6 + 6  # the diagonal and A
    assert remembering.flops == plain.flops + 10 * 5 * (3 + 6 + 1)
