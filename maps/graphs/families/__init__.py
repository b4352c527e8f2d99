"""Families of problems on graphs."""
