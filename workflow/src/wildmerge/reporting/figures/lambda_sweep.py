"""Figures 11 and 12: Task Arithmetic by lambda, with normalisation (mean) and without (sum)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.analysis import sweep

from ..inputs import Inputs
from ..plots import base_line, interval_line, panel_row, panels, rows_of_panel

INPUTS = ("merges", "comparisons")
CAPTION = """
Task Arithmetic of all checkpoints by its scaling lambda, on the mean of the task vectors (Figure
11) and on their sum (Figure 12). Bars are 95 % intervals over questions of the difference to the
base. The axis is logarithmic.
"""
# Way to combine -> label, marker, dash.
LINES = {
    "mean": ("mean of the task vectors", "o", "-"),
    "sum": ("sum, not normalised", "^", "--"),
}


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a line a way to combine."""
    points = sweep(inputs.merges, inputs.comparisons, inputs.recipes, "task_arithmetic")
    colour = inputs.looks.of("task_arithmetic").colour

    def panel(ax: Axes, rows: pd.DataFrame) -> None:
        base_line(ax, rows, "accuracy")
        own = rows_of_panel(points, rows)
        for combine, (label, marker, dash) in LINES.items():
            line = own[own["combine"] == combine]
            interval_line(ax, line, "lambda", label=label, marker=marker, ls=dash, color=colour)
        ax.set_xscale("log")
        ax.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        ax.minorticks_off()

    return panel_row(panels(inputs.merges), panel, "lambda")
