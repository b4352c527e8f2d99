"""Plug-ins by name: registries, entry points, a user's own file, composition, checkpoints."""
