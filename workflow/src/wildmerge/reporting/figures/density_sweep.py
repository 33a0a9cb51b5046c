"""Figure 17: TIES by the share of each task vector's entries that it keeps."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.analysis import sweep

from ..inputs import Inputs
from ..plots import base_line, interval_line, panel_row, panels, rows_of_panel, shade

INPUTS = ("merges", "comparisons")
CAPTION = """
TIES of all checkpoints by the share of entries of each task vector that it keeps (Figure 17), a
line a lambda. Bars, on the recipe's own lambda, are 95 % intervals over questions of the difference
to the base.
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a line a lambda of the sweep."""
    points = sweep(inputs.merges, inputs.comparisons, inputs.recipes, "ties")
    lambdas = sorted(points["lambda"].unique())
    unchanged = ["lambda" not in inputs.recipes[r].get("changed", {}) for r in points["recipe"]]
    of_recipe = set(points.loc[unchanged, "lambda"])
    marker = inputs.looks.of("ties").marker

    def panel(ax: Axes, rows: pd.DataFrame) -> None:
        base_line(ax, rows, "accuracy")
        own = rows_of_panel(points, rows)
        for i, value in enumerate(lambdas):
            line = own[own["lambda"] == value].assign(density=lambda f: 100 * f["density"])
            label, width = f"lambda {value:g}", {"lw": 0.9, "ms": 3}
            if value in of_recipe:
                label, width = f"{label} (the recipe's)", {"lw": 2}
            else:  # bars on every line would hide each other
                line = line.assign(low=np.nan, high=np.nan)
            interval_line(ax, line, "density", label=label, marker=marker,
                          color=shade(i, len(lambdas)), **width)  # fmt: skip

    return panel_row(panels(inputs.merges), panel, "density, % of entries kept")
