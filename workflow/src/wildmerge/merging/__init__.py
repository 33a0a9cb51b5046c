"""Merging: checkpoints of one base and a recipe to a model."""
