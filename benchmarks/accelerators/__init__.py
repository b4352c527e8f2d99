"""Accelerators on every shipped family, over seeds, sizes and training sets; `python -m benchmarks.accelerators.families`."""
