"""Scores into tidy tables, and what differences between models are real."""
