"""Comparisons: which rows there are, as they should be used, from which files."""
