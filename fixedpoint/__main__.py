"""`python -m fixedpoint` is the command line."""

from fixedpoint.cli import main

main()
