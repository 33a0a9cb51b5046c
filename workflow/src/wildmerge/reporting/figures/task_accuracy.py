"""Figures 7-10: accuracy by number of merged checkpoints, task by task; band: sd over draws."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..looks import Looks
from ..plots import GREY, base_line, by_n, grid, legend_below, panels

INPUTS = ("scores",)
CAPTION = """
Accuracy by number of merged checkpoints, task by task (Figures 7 to 10). The line is the mean over
draws, the band one standard deviation over draws; the broken line is the base.
"""


def draw(inputs: Inputs) -> Figure:
    """A block of panels a base and suite, a panel a task.

    A task that a base lacks leaves its place empty and says so.
    """
    scores = inputs.scores
    tasks = {suite: list(dict.fromkeys(rows["task"])) for suite, rows in scores.groupby("suite")}
    columns = min(4, max(map(len, tasks.values())))
    blocks = [(title, rows, tasks[rows["suite"].iloc[0]]) for title, rows in panels(scores)]
    heights = [math.ceil(len(names) / columns) for _, _, names in blocks]
    figure, axes = grid(sum(heights), columns, width=2.5, height=2.0)
    for block, (title, rows, names) in enumerate(blocks):
        first = sum(heights[:block])
        for place, ax in enumerate(axes[first : first + heights[block]].flat):
            if place >= len(names):
                ax.axis("off")
                continue
            _panel(ax, rows[rows["task"] == names[place]], inputs.looks)
            ax.set_title(f"{title}: {names[place]}" if len(blocks) > 1 else names[place])
            if place % columns == 0:
                ax.set_ylabel("accuracy, %")
            if place >= len(names) - columns:
                ax.set_xlabel("merged checkpoints, n")
    legend_below(figure, axes.flat)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, looks: Looks) -> None:
    """One task of one base: the base as a line, a line a recipe."""
    if rows.empty:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=GREY)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    base_line(ax, rows, "value")
    for recipe in looks.order(rows["recipe"]):
        by_n(ax, rows, "value", recipe, looks, scale=100, ms=3.5, lw=1.1)
    ax.set_xticks(sorted(rows.loc[rows["n"] > 1, "n"].unique()))
