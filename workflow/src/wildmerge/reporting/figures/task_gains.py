"""Heatmap: the mean gain over the base of each method's merges, task by task."""

import numpy as np

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def gains(scores, tasks):
    """scores: rows of scores.csv of one base and suite; tasks: the suite's. Returns a frame recipe
    x task of mean gains in points over all merges, NaN where a task was not measured, and last
    their mean over the measured tasks.
    """
    base = scores[scores["subset"] == "base"].set_index("task")["value"]
    merges = scores[scores["recipe"] != "identity"]
    means = merges.groupby(["recipe", "task"], sort=False)["value"].mean().unstack()
    means = 100 * (means - base).reindex(columns=tasks)
    means["mean"] = means.mean(axis=1)
    return means.reindex(style.order(means.index))


def draw(scores):
    """scores: rows of scores.csv. Returns the figure: a panel a base and suite."""
    tasks = scores.groupby("suite")["task"].unique()
    panels = [
        (title, gains(rows, tasks[rows["suite"].iloc[0]])) for title, rows in style.panels(scores)
    ]
    width = max(3.6, 1.4 + 0.5 * max(means.shape[1] for _, means in panels))
    height = 1.3 + 0.24 * max(len(means) for _, means in panels)
    figure, axes = style.grid(len(panels), 1, width=width, height=height)
    for ax, (title, means) in zip(axes[:, 0], panels, strict=True):
        values = means.to_numpy(float)
        finite = np.abs(values[np.isfinite(values)])
        # The colours end at the 95th percentile: one ruined task must not pale all others.
        limit = max(0.5, np.percentile(finite, 95)) if finite.size else 1
        labels = [[style.signed(value, 1) for value in line] for line in values]
        rows = [style.method(recipe).label for recipe in means.index]
        image = style.heatmap(ax, values, labels, rows, means.columns, limit)
        ax.axvline(means.shape[1] - 1.5, color="white", lw=3)
        ax.set_title(title)
        figure.colorbar(image, ax=ax, label="gain, points", extend="both", pad=0.01)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.scores))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
