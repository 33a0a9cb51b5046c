"""Figures 7-10: accuracy by number of merged checkpoints, task by task; band: sd over draws."""

import math

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def draw(scores):
    """scores: rows of scores.csv. Returns the figure: a block of panels a base and suite, a panel
    a task; a task that a base lacks leaves its place empty and says so.
    """
    tasks = {suite: list(dict.fromkeys(rows["task"])) for suite, rows in scores.groupby("suite")}
    columns = min(4, max(map(len, tasks.values())))
    panels = [(title, rows, tasks[rows["suite"].iloc[0]]) for title, rows in style.panels(scores)]
    heights = [math.ceil(len(names) / columns) for _, _, names in panels]
    figure, axes = style.grid(sum(heights), columns, width=2.5, height=2.0)
    for block, (title, rows, names) in enumerate(panels):
        first = sum(heights[:block])
        for place, ax in enumerate(axes[first : first + heights[block]].flat):
            if place >= len(names):
                ax.axis("off")
                continue
            panel(ax, rows[rows["task"] == names[place]])
            ax.set_title(f"{title}: {names[place]}" if len(panels) > 1 else names[place])
            if place % columns == 0:
                ax.set_ylabel("accuracy, %")
            if place >= len(names) - columns:
                ax.set_xlabel("merged checkpoints, n")
    style.legend_below(figure, axes.flat)
    return figure


def panel(ax, rows):
    """One task of one base: the base as a line, a line a recipe."""
    if rows.empty:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=style.GREY)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    style.base_line(ax, rows, "value")
    for recipe in style.order(rows["recipe"]):
        style.by_n(ax, rows, "value", recipe, scale=100, ms=3.5, lw=1.1)
    ax.set_xticks(sorted(rows.loc[rows["n"] > 1, "n"].unique()))


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.scores))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
