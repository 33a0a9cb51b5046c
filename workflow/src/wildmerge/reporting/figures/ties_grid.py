"""Figures 13-16: accuracy against the norm of the update for TIES by density and lambda."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.analysis import sweep

from ..inputs import Inputs
from ..plots import GREY, base_line, panel_row, panels, rows_of_panel, shade

INPUTS = ("merges", "comparisons")
CAPTION = """
Mean accuracy against the L2 norm of the update for TIES of all checkpoints (Figures 13 to 16). A
mark is a merge: its shape tells the density, its colour the lambda; lines join the lambdas of one
density.
"""
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "h"]


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a line a density through its lambdas, which colours tell."""
    points = sweep(inputs.merges, inputs.comparisons, inputs.recipes, "ties")
    lambdas, densities = sorted(points["lambda"].unique()), sorted(points["density"].unique())

    def panel(ax: Axes, rows: pd.DataFrame) -> None:
        base_line(ax, rows, "accuracy")
        own = rows_of_panel(points, rows)
        for marker, density in zip(MARKERS * len(densities), densities, strict=False):
            line = own[own["density"] == density].sort_values("lambda")
            ax.plot(line["norm"], 100 * line["accuracy"], color="#BBBBBB", lw=0.8, zorder=1)
            ax.plot([], [], color=GREY, ls="", marker=marker, label=f"density {density:g}")
            for i, value in enumerate(lambdas):
                at = line[line["lambda"] == value]
                ax.plot(at["norm"], 100 * at["accuracy"], ls="", marker=marker,
                        color=shade(i, len(lambdas)))  # fmt: skip
        for i, value in enumerate(lambdas):
            ax.plot([], [], lw=4, color=shade(i, len(lambdas)), label=f"lambda {value:g}")

    return panel_row(panels(inputs.merges), panel, "L2 norm of the update")
