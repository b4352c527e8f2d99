"""Milliseconds per instance to a true KKT error, beside outside solvers.

Run on an idle machine, from the repository root:

    .venv/bin/python -m benchmarks.engine tune      (settings for the scs package: about ten minutes)
    .venv/bin/python -m benchmarks.engine run       (everything; interrupted, it goes on)
    .venv/bin/python -m benchmarks.engine memory    (100,000 instances in one call)
    .venv/bin/python -m benchmarks.engine report    (ENGINE.md and its picture from what was recorded)

Our settings are in `settings.json`, those of the scs package in `scs.json`, which `tune` makes.
"""
