"""Families of cone programs."""
