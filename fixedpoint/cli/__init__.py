"""The command line, `fixedpoint list | solve | compare | tune | train | check`."""

from fixedpoint.cli.application import main

__all__ = ["main"]
