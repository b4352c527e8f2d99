"""Accelerators on every shipped family, over seeds, sizes and training sets; begin with `families`."""
