"""Products of cones, and the rows that a user names them by."""
