"""The laws of accelerators."""
