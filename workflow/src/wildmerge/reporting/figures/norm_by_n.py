"""Figure 4: L2 distance of merges from the base by number of checkpoints; band: sd over draws."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import by_n, log_ticks, panel_row, panels

INPUTS = ("merges",)
CAPTION = """
L2 norm of the merged update, that is the distance of the merge from its base, by number of merged
checkpoints (Figure 4). The line is the mean over draws, the band one standard deviation over draws.
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base, a line a recipe, logarithmic norm."""
    # A norm has no suite.
    merges = inputs.merges.drop_duplicates(["base", "subset", "recipe"]).assign(suite="")

    def panel(ax: Axes, rows: pd.DataFrame) -> None:
        ax.set_yscale("log")
        log_ticks(ax.yaxis)
        for recipe in inputs.looks.order(rows["recipe"]):
            by_n(ax, rows, "norm", recipe, inputs.looks)
        ax.set_xticks(sorted(rows.loc[rows["n"] > 1, "n"].unique()))

    return panel_row(panels(merges), panel, "merged checkpoints, n", "L2 norm of the update")
