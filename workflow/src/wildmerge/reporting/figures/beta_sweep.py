"""Figure 18: Subspace Boosting by its threshold beta."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.analysis import sweep

from ..inputs import Inputs
from ..looks import root_of
from ..plots import base_line, interval_line, line_of, panel_row, panels, rows_of_panel

INPUTS = ("merges", "comparisons")
CAPTION = """
Subspace Boosting of all checkpoints by its threshold beta (Figure 18). Bars are 95 % intervals over
questions of the difference to the base.
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a line a recipe whose beta is swept."""
    recipes, looks = inputs.recipes, inputs.looks
    swept = [root_of(recipes, r) for r in recipes if "beta" in recipes[r].get("changed", {})]
    points = {
        name: sweep(inputs.merges, inputs.comparisons, recipes, name)
        for name in looks.order(swept) or ["task_arithmetic_sb"]
    }

    def panel(ax: Axes, rows: pd.DataFrame) -> None:
        base_line(ax, rows, "accuracy")
        for name, own in points.items():
            line = line_of(looks.of(name)) | {"label": looks.label(name)}
            interval_line(ax, rows_of_panel(own, rows), "beta", **line)

    return panel_row(panels(inputs.merges), panel, "beta")
