"""The implicit derivative of a cone program."""
