"""Figures 19-22: pairwise cosines between the task vectors of the checkpoints of a base."""

import numpy as np
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import pairs_of_checkpoints

INPUTS = ("similarity",)
CAPTION = """
Cosines between the task vectors of the checkpoints of a base, over all weights (Figures 19 to 22).
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base, the cosines of the whole task vectors."""
    return pairs_of_checkpoints(inputs, _cells, size=(4.6, 4.1), label="cosine")


def cosines(gram: np.ndarray) -> np.ndarray:
    """The cosines of task vectors, 0 where one is zero.

    Args:
        gram: (..., k, k) products of task vectors.
    """
    norm = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    product = norm[..., :, None] * norm[..., None, :]
    return np.divide(gram, product, out=np.zeros_like(gram), where=product > 0)


def _cells(gram: np.ndarray) -> tuple[np.ndarray, list[list[str]], float]:
    values = cosines(gram.sum(0))
    np.fill_diagonal(values, np.nan)
    largest = 0.0 if len(values) < 2 else float(np.nanmax(np.abs(values)))
    return values, [[_text(value) for value in line] for line in values], max(0.05, largest)


def _text(value: float) -> str:
    """A cosine in a narrow cell: `-.02`; nothing on the diagonal."""
    return "" if np.isnan(value) else f"{value:.2f}".replace("0.", ".").replace("-.00", ".00")
