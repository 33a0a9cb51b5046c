"""Figures 3 and 6: mean accuracy by number of merged checkpoints; the band is the sd over draws."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..looks import CHECKPOINT_LOOK, Looks
from ..plots import base_line, by_n, grid, legend_below, panels

INPUTS = ("merges",)
CAPTION = """
Mean accuracy over the tasks of the suite by number of merged checkpoints (Figures 3 and 6 of the
paper). The line is the mean over draws, the band one standard deviation over draws; a size with one
draw has no band. The broken line is the base, the ticks at n = 1 are the single checkpoints.
"""


def draw(inputs: Inputs) -> Figure:
    """A row a family of methods, a column a base; for one base the families stand side by side."""
    families = inputs.looks.families(inputs.merges["recipe"])
    drawn = panels(inputs.merges)
    beside = len(drawn) == 1
    shape = (1, len(families)) if beside else (len(families), len(drawn))
    figure, axes = grid(*shape, width=3.4 if beside else 2.7)
    for column, (title, rows) in enumerate(drawn):
        for row, (family, recipes) in enumerate(families.items()):
            ax = axes[0, row] if beside else axes[row, column]
            _panel(ax, rows, recipes, inputs.looks)
            if row == 0 or beside:
                ax.set_title(f"{title}, {family}" if beside else title)
            if (row if beside else column) == 0:
                ax.set_ylabel("mean accuracy, %")
            if beside or row == len(families) - 1:
                ax.set_xlabel("merged checkpoints, n")
    legend_below(figure, axes.flat)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, recipes: list[str], looks: Looks) -> None:
    """One panel: the base as a line, the single checkpoints at n = 1, a line a recipe."""
    base_line(ax, rows, "accuracy")
    single = rows[(rows["n"] == 1) & (rows["recipe"] == "identity")]["accuracy"].dropna()
    if len(single):
        ax.plot([1] * len(single), 100 * single, ls="", marker="_", ms=7,
                color=CHECKPOINT_LOOK.colour, label="single checkpoints")  # fmt: skip
    for recipe in recipes:
        by_n(ax, rows, "accuracy", recipe, looks, scale=100)
    ax.set_xticks(sorted(rows.loc[rows["n"] > 0, "n"].unique()))
