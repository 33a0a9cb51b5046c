"""Figures 7-10: accuracy by number of merged checkpoints, task by task; band: sd over draws."""

import math

from wildmerge import style
from wildmerge.scores import read_table


def draw(scores):
    """scores: rows of scores.csv. Returns the figure: a row of panels a base and suite, a panel a
    task; a task that a base lacks leaves its place empty and says so."""
    tasks = list(dict.fromkeys(scores["task"]))
    columns = min(4, len(tasks))
    height = math.ceil(len(tasks) / columns)
    panels = style.panels(scores)
    figure, axes = style.grid(height * len(panels), columns, width=2.5, height=2.0)
    for block, (title, rows) in enumerate(panels):
        places = axes[block * height : (block + 1) * height].flat
        for place, ax in enumerate(places):
            if place >= len(tasks):
                ax.axis("off")
                continue
            panel(ax, rows[rows["task"] == tasks[place]])
            ax.set_title(f"{title}: {tasks[place]}" if len(panels) > 1 else tasks[place])
            if place % columns == 0:
                ax.set_ylabel("accuracy, %")
            if place >= len(tasks) - columns:
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
    base = rows.loc[rows["subset"] == "base", "value"].dropna()
    if len(base):
        ax.axhline(100 * base.iloc[0], color=style.BASE_COLOUR, lw=1, ls=(0, (5, 2)), label="base")
    for recipe in style.order(rows["recipe"]):
        look = style.method(recipe)
        by_n = rows[rows["recipe"] == recipe].groupby("n")["value"]
        mean, sd = 100 * by_n.mean().dropna(), 100 * by_n.std().dropna()
        ax.plot(mean.index, mean, color=look.colour, marker=look.marker, ls=look.dash, ms=3.5,
                lw=1.1, label=look.label)  # fmt: skip
        centre = mean[sd.index]
        ax.fill_between(sd.index, centre - sd, centre + sd, color=look.colour, alpha=0.12, lw=0)
    ax.set_xticks(sorted(rows.loc[rows["n"] > 1, "n"].unique()))


if __name__ == "__main__":
    figure = draw(read_table(snakemake.input.scores))
    style.save(figure, snakemake.output.pdf, snakemake.output.png)
