"""Learned accelerators: their base, what they are trained for, the training itself."""
