"""Checkpoints of a base: whether they can be merged, and how they are made to fit it."""
