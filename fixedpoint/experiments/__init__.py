"""Measuring: the protocol of comparison, tuning, comparisons, and how they are shown."""
