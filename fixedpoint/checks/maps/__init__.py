"""The laws of maps."""
