"""Pytrees of batch-first tensors, and masks over their rows."""
