"""Heatmap: the mean gain over the base of each method's merges, task by task."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..looks import Looks
from ..numbers import signed
from ..plots import grid, heatmap, panels

INPUTS = ("scores",)
CAPTION = """
Mean gain over the base of all merges of a method, task by task and on the mean over tasks, in
percentage points.
"""


def gains(scores: pd.DataFrame, tasks: Sequence[str], looks: Looks) -> pd.DataFrame:
    """Mean gains over all merges of a recipe, a row a recipe, a column a task.

    Args:
        scores: rows of scores.csv of one base and suite.
        tasks: the suite's.
        looks: of the study.

    Returns:
        The gains in points, NaN where a task was not measured; the last column `mean` is the mean
        over the measured tasks.
    """
    base = scores[scores["subset"] == "base"].set_index("task")["value"]
    merges = scores[scores["recipe"] != "identity"]
    means = merges.groupby(["recipe", "task"], sort=False)["value"].mean().unstack()
    means = 100 * (means - base).reindex(columns=tasks)
    means["mean"] = means.mean(axis=1)
    return means.reindex(looks.order(means.index))


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, methods by tasks."""
    scores, looks = inputs.scores, inputs.looks
    tasks = scores.groupby("suite")["task"].unique()
    drawn = [
        (title, gains(rows, tasks[rows["suite"].iloc[0]], looks))
        for title, rows in panels(scores)
        if (rows["recipe"] != "identity").any()  # a base may have lost all of its merges
    ]
    width = max(3.6, 1.4 + 0.5 * max(means.shape[1] for _, means in drawn))
    height = 1.3 + 0.24 * max(len(means) for _, means in drawn)
    figure, axes = grid(len(drawn), 1, width=width, height=height)
    for ax, (title, means) in zip(axes[:, 0], drawn, strict=True):
        values = means.to_numpy(float)
        finite = np.abs(values[np.isfinite(values)])
        # The colours end at the 95th percentile: one ruined task must not pale all others.
        limit = max(0.5, float(np.percentile(finite, 95))) if finite.size else 1
        labels = [[signed(value, 1) for value in line] for line in values]
        rows = [looks.label(recipe) for recipe in means.index]
        image = heatmap(ax, values, labels, rows, list(means.columns), limit)
        ax.axvline(means.shape[1] - 1, color="white", lw=3)
        ax.set_title(title)
        figure.colorbar(image, ax=ax, label="gain, points", extend="both", pad=0.01)
    return figure
