"""From a batch of problems to a solution: the front door, chunks and workers, and the only loop."""
