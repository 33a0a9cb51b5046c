"""Figures 27 and 28: merges of experts of one domain against merges of all of them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.analysis import MODEL

from ..inputs import Inputs
from ..looks import Looks, base_label
from ..plots import base_line, grid, legend_below

INPUTS = ("merges", "comparisons")
CAPTION = """
Merges of the experts of one domain and of all experts together, on the tasks of each domain
(Figures 27 and 28). Bars are 95 % intervals over questions of the difference to the base. The grey
band is the range of the single checkpoints.
"""
GROUP_LOOKS = [("o", "#009E73"), ("s", "#0072B2"), ("^", "#D55E00"), ("D", "#CC79A7")]


def draw(inputs: Inputs) -> Figure:
    """A row a base, a column a suite, a mark a group and recipe."""
    study, comparisons = inputs.study, inputs.comparisons
    against_base = comparisons[comparisons["reference"] == "base"]
    merges = inputs.merges.merge(against_base[[*MODEL, "low", "high"]], "left", MODEL)
    suites = [suite for suite in study["suites"] if suite in set(merges["suite"])]
    bases = merges["base"].unique()
    figure, axes = grid(len(bases), len(suites), width=3.7, height=2.4)
    for row, base in enumerate(bases):
        for column, suite in enumerate(suites):
            ax = axes[row, column]
            rows = merges[(merges["base"] == base) & (merges["suite"] == suite)]
            _panel(ax, rows, list(study["groups"]), inputs.looks)
            ax.set_title(f"{base_label(base)}, {suite} tasks")
        axes[row, 0].set_ylabel("mean accuracy, %")
    legend_below(figure, axes.flat)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, groups: list[str], looks: Looks) -> None:
    """One base on one suite: the base as a line, the single checkpoints' range, a mark a group."""
    base_line(ax, rows, "accuracy")
    single = 100 * rows.loc[(rows["n"] == 1), "accuracy"].dropna()
    if len(single):
        ax.axhspan(single.min(), single.max(), color="#EEEEEE", zorder=0, lw=0,
                   label="range of single checkpoints")  # fmt: skip
    recipes = looks.order(rows["recipe"])
    present = [group for group in groups if (rows["subset"] == group).any()]
    for i, group in enumerate(present):
        own = rows[rows["subset"] == group].set_index("recipe").reindex(recipes)
        x = np.arange(len(recipes)) + 0.22 * (i - (len(present) - 1) / 2)
        accuracy = 100 * own["accuracy"]
        n = int(own["n"].dropna().iloc[0])
        marker, colour = GROUP_LOOKS[groups.index(group) % len(GROUP_LOOKS)]
        ax.plot(x, accuracy, ls="", marker=marker,
                color=colour, label=f"{group} experts merged (n = {n})")  # fmt: skip
        low, high = accuracy - own["gain"] + own["low"], accuracy - own["gain"] + own["high"]
        ax.vlines(x, low, high, color=colour, lw=1)
    ax.set_xticks(range(len(recipes)), [looks.label(recipe) for recipe in recipes], rotation=30,
                  ha="right", rotation_mode="anchor")  # fmt: skip
    ax.grid(False, axis="x")
