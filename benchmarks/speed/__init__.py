"""Milliseconds per instance to a true KKT error, beside outside solvers.

Run on an idle machine, from the repository root:

    .venv/bin/python -m benchmarks.speed tune           (settings for the scs package: about ten minutes)
    .venv/bin/python -m benchmarks.speed tune --ours    (ours, and those of the layer: an hour)
    .venv/bin/python -m benchmarks.speed run            (everything; interrupted, it goes on)
    .venv/bin/python -m benchmarks.speed memory         (100,000 instances in one call)
    .venv/bin/python -m benchmarks.speed report         (ENGINE.md and its picture from what was recorded)

Rows with several workers want OMP_NUM_THREADS=1, rows of one process (the Kalman filter's) torch's own threads:
see `make bench-engine`. Every table says with how many it was made.

Settings of the scs package are in `scs.json`, which `tune` makes. Ours are in `settings.json`: `tune --ours` makes the
rows that say so in their "provenance" and can make all others but those in a learned metric, whose settings are those
of `python -m tools.metric`.
"""
