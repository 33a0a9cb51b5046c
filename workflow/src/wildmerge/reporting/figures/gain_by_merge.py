"""Forest plot: every merge's gain over its base with its 95 % interval over questions."""

import numpy as np

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job

NAMED = 25  # merges of a method that are still told by name
COLOURS = {"above": style.ABOVE, "below": style.BELOW, "not told apart": "#9A9A9A"}


def draw(comparisons):
    """comparisons: rows of comparisons.csv. Returns the figure: a row a base and suite, a column a
    method. Up to `NAMED` merges stand under each other by name, more are sorted by their gain;
    colours tell the verdict after correction.
    """
    rows = comparisons[(comparisons["reference"] == "base") & (comparisons["n"] > 1)]
    recipes, panels = style.order(rows["recipe"]), style.panels(rows)
    most = rows.groupby(["base", "suite", "recipe"]).size().max()
    height = 1.3 + (0.16 * most if most <= NAMED else 2.4)
    figure, axes = style.grid(
        len(panels), len(recipes), width=1.55, height=height, sharex="row", sharey="row"
    )
    for line, (title, own) in zip(axes, panels, strict=True):
        names = list(dict.fromkeys(own.sort_values(["n", "subset"])["subset"]))
        for ax, recipe in zip(line, recipes, strict=True):
            merges = own[own["recipe"] == recipe].sort_values("gain")
            by_name = most <= NAMED
            y = merges["subset"].map(names.index) if by_name else np.arange(len(merges))
            panel(ax, merges, np.asarray(y))
            ax.set_title(style.method(recipe).label, fontweight="normal")
            ax.set_yticks(range(len(names)) if by_name else [], names if by_name else [])
        if by_name:
            line[0].set_ylim(len(names) - 0.5, -0.5)
        line[0].set_ylabel(title if by_name else f"{title}\nmerges by gain")
    for verdict, colour in COLOURS.items():
        label = verdict if verdict == "not told apart" else f"{verdict} the base"
        axes[0, 0].plot([], [], color=colour, lw=2, label=label)
    style.legend_below(figure, axes.flat)
    return figure


def panel(ax, merges, y):
    """The merges of one method at heights y, and below the axis how many are told apart."""
    ax.axvline(0, color=style.BASE_COLOUR, lw=1, ls=(0, (5, 2)))
    for verdict, colour in COLOURS.items():
        at = (merges["verdict"] == verdict).to_numpy()
        part = merges[at]
        known = part["low"].notna().to_numpy()
        ax.hlines(y[at][known], part["low"][known], part["high"][known], color=colour, lw=1,
                  alpha=0.7)  # fmt: skip
        ax.plot(part["gain"], y[at], ls="", marker=".", ms=3, color=colour)
    above, below = (int((merges["verdict"] == v).sum()) for v in ("above", "below"))
    ax.set_xlabel(f"gain, points\n{above} above, {below} below\nof {len(merges)}", fontsize=7)


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.comparisons))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
