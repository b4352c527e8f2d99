"""Tables and plots, made from result records alone."""
