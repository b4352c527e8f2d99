"""What the paper's experiments train, and how."""
