"""The searches for settings that `benchmarks.speed` times: those of the scs package and our own."""
