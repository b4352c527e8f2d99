"""What this machine can do, measured: `python -m benchmarks.machine` prints it as JSON for the threads it has.

The number of threads is that of the environment (OMP_NUM_THREADS); `measured` asks for one and for all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

SECONDS = 0.25
"""How long each probe is repeated, at least; the fastest repetition counts."""
SIZES = {"L2": 1 << 18, "L3": 1 << 23, "DRAM": 1 << 28}
"""Bytes of a tensor that, with its copy, lives there."""
GEMMS = {"128 x 200 x 200": (128, 200, 200), "1024 x 600 x 600": (1024, 600, 600)}
"""Rows, inner and outer size of a product."""
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def measured() -> dict[str, dict[str, Any]]:
    """Rates with one thread and with all, each in a process of its own: "1" and the number of all."""
    found = {}
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "benchmarks.machine"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[str(threads)] = json.loads(done.stdout)
    return found


def probe() -> dict[str, Any]:
    """GFLOP/s of products, GB/s by where tensors live, microseconds of an eager operation on one number."""
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "gflops": {}, "gbs": {}}
    for dtype_name, dtype in DTYPES.items():
        rates = found["gflops"][dtype_name] = {}
        for name, (rows, inner, outer) in GEMMS.items():
            a, b = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, outer, dtype=dtype)
            out = torch.empty(rows, outer, dtype=dtype)
            rates[name] = 2e-9 * rows * inner * outer / fastest(partial(torch.mm, a, b, out=out))
        a, v = torch.randn(256, 200, 200, dtype=dtype), torch.randn(256, 1, 200, dtype=dtype)
        rates["256 matrices of 200 x 200 by vectors"] = 2e-9 * a.numel() / fastest(partial(torch.bmm, v, a))
    for name, size in SIZES.items():
        a = torch.randn(size // 8, dtype=torch.float64)
        b = torch.empty_like(a)
        found["gbs"][name] = {
            "read": 1e-9 * size / fastest(partial(torch.dot, a, a)),
            "copy": 2e-9 * size / fastest(partial(b.copy_, a)),
        }
    one = torch.zeros(1, 1, dtype=torch.float64)
    found["us_per_operation"] = 1e6 * fastest(partial(torch.add, one, one))
    return found


def fastest(function: Callable[[], Any]) -> float:
    """Seconds of the fastest repetition; short calls are timed in groups."""
    function()
    group, best, until = 1, float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until or best == float("inf"):
        began = time.perf_counter()
        for _ in range(group):
            function()
        spent = time.perf_counter() - began
        if spent < 2e-4:
            group *= 2
        else:
            best = min(best, spent / group)
    return best


if __name__ == "__main__":
    print(json.dumps(probe()))
