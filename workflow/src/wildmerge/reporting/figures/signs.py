"""Figures 23-26: in how many weight tensors two task vectors point the same or opposite ways."""

import numpy as np
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import pairs_of_checkpoints

INPUTS = ("similarity",)
CAPTION = """
Number of weight tensors in which two task vectors have a positive (above) and a negative cosine
(below), coloured by their balance (Figures 23 to 26). A tensor that one of the two checkpoints left
alone counts in neither.
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base, `positive/negative` in each cell, coloured by their balance."""
    return pairs_of_checkpoints(
        inputs, _cells, size=(5.4, 4.4), label="positive minus negative, % of tensors",
        count_tensors=True,
    )  # fmt: skip


def counts(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of tensors with a positive and with a negative cosine, (k, k) each.

    A tensor that one of two checkpoints left alone counts in neither.

    Args:
        gram: (tensors, k, k) products of task vectors.
    """
    return (gram > 0).sum(0), (gram < 0).sum(0)


def _cells(gram: np.ndarray) -> tuple[np.ndarray, list[list[str]], float]:
    positive, negative = counts(gram)
    balance = 100 * (positive - negative) / len(gram)
    np.fill_diagonal(balance, np.nan)
    k = len(balance)
    labels = [
        [f"{positive[i, j]}\n{negative[i, j]}" if i != j else "" for j in range(k)]
        for i in range(k)
    ]
    return balance, labels, 100
