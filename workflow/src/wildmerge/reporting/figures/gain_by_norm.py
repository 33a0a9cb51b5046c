"""Gain over the base against the distance from it: does going far ruin a merge?"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import log_ticks, panel_row, panels, zero_line

INPUTS = ("merges",)
CAPTION = """
Gain over the base against the distance from it. A mark is a merge; the larger it is, the more
checkpoints were merged.
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a mark a merge; larger marks are merges of more checkpoints."""
    looks = inputs.looks

    def panel(ax: Axes, rows: pd.DataFrame) -> None:
        zero_line(ax, horizontal=True, label="base")
        for recipe in looks.order(rows["recipe"]):
            look, own = looks.of(recipe), rows[rows["recipe"] == recipe]
            ax.scatter(own["norm"], own["gain"], s=4 + 2.2 * own["n"], marker=look.marker,
                       color=look.colour, alpha=0.6, lw=0, label=looks.label(recipe))  # fmt: skip
        if (rows["norm"] > 0).any():
            ax.set_xscale("log")
            log_ticks(ax.xaxis)

    merged = inputs.merges[inputs.merges["recipe"] != "identity"]
    return panel_row(
        panels(merged), panel, "L2 norm of the update", "gain over the base, points",
        size=(2.8, 2.8), alone=3.6,
    )  # fmt: skip
