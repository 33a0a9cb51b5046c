"""Evaluation: a model, scored on a suite of benchmarks by lm-eval."""
