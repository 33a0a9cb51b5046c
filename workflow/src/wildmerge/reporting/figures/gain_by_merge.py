"""Forest plot: every merge's gain over its base with its 95 % interval over questions."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import ABOVE, BELOW, grid, legend_below, panels, zero_line

INPUTS = ("comparisons",)
CAPTION = """
Gain over the base of every merge with its 95 % interval over questions (paired bootstrap). Colours
tell the verdict of the paired test after correction for all merges of the study (false discovery
rate 5 %).
"""
NAMED = 25  # merges of a method that still have their names beside them
COLOURS = {"above": ABOVE, "below": BELOW, "not told apart": "#9A9A9A"}


def draw(inputs: Inputs) -> Figure:
    """A row a base and suite, a column a method.

    Up to `NAMED` merges stand under each other by name, more are sorted by their gain; colours tell
    the verdict after correction.
    """
    comparisons, looks = inputs.comparisons, inputs.looks
    rows = comparisons[(comparisons["reference"] == "base") & (comparisons["n"] > 1)]
    recipes, drawn = looks.order(rows["recipe"]), panels(rows)
    most = rows.groupby(["base", "suite", "recipe"]).size().max()
    by_name = most <= NAMED
    height = 1.3 + (0.16 * most if by_name else 2.4)
    figure, axes = grid(
        len(drawn), len(recipes), width=1.55, height=height, sharex="row", sharey="row"
    )
    for line, (title, own) in zip(axes, drawn, strict=True):
        names = list(dict.fromkeys(own.sort_values(["n", "subset"])["subset"]))
        for ax, recipe in zip(line, recipes, strict=True):
            merges = own[own["recipe"] == recipe].sort_values("gain")
            y = merges["subset"].map(names.index) if by_name else np.arange(len(merges))
            _panel(ax, merges, np.asarray(y))
            ax.set_title(looks.label(recipe), fontweight="normal")
            ax.set_yticks(range(len(names)) if by_name else [], names if by_name else [])
        if by_name:
            line[0].set_ylim(len(names) - 0.5, -0.5)
        line[0].set_ylabel(title if by_name else f"{title}\nmerges by gain")
    for verdict, colour in COLOURS.items():
        label = verdict if verdict == "not told apart" else f"{verdict} the base"
        axes[0, 0].plot([], [], color=colour, lw=2, label=label)
    legend_below(figure, axes.flat)
    return figure


def _panel(ax: Axes, merges: pd.DataFrame, y: np.ndarray) -> None:
    """The merges of one method at heights y, and below the axis the numbers of verdicts."""
    zero_line(ax)
    for verdict, colour in COLOURS.items():
        at = (merges["verdict"] == verdict).to_numpy()
        part = merges[at]
        known = part["low"].notna().to_numpy()
        ax.hlines(y[at][known], part["low"][known], part["high"][known], color=colour, lw=1,
                  alpha=0.7)  # fmt: skip
        ax.plot(part["gain"], y[at], ls="", marker=".", ms=3, color=colour)
    above, below = (int((merges["verdict"] == v).sum()) for v in ("above", "below"))
    ax.set_xlabel(f"gain, points\n{above} above, {below} below\nof {len(merges)}", fontsize=7)
