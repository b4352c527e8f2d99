"""What may be claimed of a point, computed from the original data."""
