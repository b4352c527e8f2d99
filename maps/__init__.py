"""Fixed-point maps that ship with the project; each imports only the public names of `fixedpoint`."""
