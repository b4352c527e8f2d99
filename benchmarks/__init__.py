"""Suites that take longer than a test: speed, accuracy and what the machine allows."""
