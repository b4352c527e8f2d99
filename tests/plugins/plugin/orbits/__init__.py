"""A plug-in for fixedpoint: one map, one accelerator and a family of problems."""
