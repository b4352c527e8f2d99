"""The neural-acceleration paper's experiments in its own setting, measured, drawn and judged from records.

    python -m benchmarks.paper lasso | robust-pca | robust-kalman | elastic-net
    python -m benchmarks.paper report

Venkataraman & Amos, "Neural Fixed-Point Acceleration for Convex Optimization" (2021, arXiv 2107.10254). A problem's
command trains what has no weights yet, measures every row on held-out instances, draws the pictures and writes the
page; interrupted, it goes on when it is given again. `report` makes `benchmarks/PAPER.md` and all pictures from records
alone.

Written from the paper; the code that its authors released was not looked at.
"""
