"""How a solution is differentiated: one strategy a file."""
