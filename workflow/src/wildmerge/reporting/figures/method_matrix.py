"""Method against method: the mean difference on the same subsets, and what the test says."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import grid, heatmap, near_square, panels, without_axes

INPUTS = ("methods",)
CAPTION = """
Mean gain of the method in the row minus that of the method in the column, in percentage points,
over all subsets that both have merged. Bold with a star: told apart at 5 % after correction for all
pairs (Holm); an equals sign: equal within the study's margin; the rest is not told apart.
"""


def matrix(pairs: pd.DataFrame, recipes: list[str]) -> tuple[np.ndarray, list[list[str]]]:
    """Differences of all pairs, (recipes, recipes) with NaN on the diagonal, and their texts."""
    values = np.full((len(recipes), len(recipes)), np.nan)
    texts = [[""] * len(recipes) for _ in recipes]
    marks = {"above": "*", "below": "*", "equal": " ="}
    for row in pairs.itertuples():
        for one, other, sign in ((row.a, row.b, 1), (row.b, row.a, -1)):
            i, j = recipes.index(one), recipes.index(other)
            values[i, j] = sign * row.difference
            texts[i][j] = f"{sign * row.difference:+.2f}{marks.get(row.verdict, '')}"
    return values, texts


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite: a heatmap of all pairs of methods."""
    pairs = inputs.methods
    pairs = pairs[(pairs["contrast"] == "") & (pairs["n"].astype(str) == "all")]
    recipes = inputs.looks.order([*pairs["a"], *pairs["b"]])
    labels = [inputs.looks.label(recipe) for recipe in recipes]
    drawn = panels(pairs)
    size = 0.48 * len(recipes) + 1.3
    figure, axes = grid(*near_square(max(1, len(drawn))), width=size, height=0.75 * size)
    without_axes(axes.flat[len(drawn) :])
    limit = float(pairs["difference"].abs().max()) if len(pairs) else 1.0

    def panel(ax: Axes, rows: pd.DataFrame) -> None:
        values, texts = matrix(rows, recipes)
        ax.grid(visible=False)
        heatmap(ax, values, texts, labels, labels, max(limit, 1e-9))
        for text in ax.texts:
            if text.get_text().endswith("*"):
                text.set_fontweight("bold")

    for ax, (title, rows) in zip(axes.flat, drawn, strict=False):
        panel(ax, rows)
        ax.set_title(title)
    return figure
