"""Forest plot: every merge's gain over its base with its 95 % interval over questions."""

import numpy as np
from wildmerge import style
from wildmerge.jobs import job
from wildmerge.scores import read_table

COLOURS = {"above": style.ABOVE, "below": style.BELOW, "not told apart": "#9A9A9A"}


def draw(comparisons):
    """comparisons: rows of comparisons.csv. Returns the figure: a row a base and suite, a column a
    method, within it the merges by gain; colours tell the verdict after correction."""
    rows = comparisons[(comparisons["reference"] == "base") & (comparisons["n"] > 1)]
    recipes, panels = style.order(rows["recipe"]), style.panels(rows)
    most = rows.groupby(["base", "suite", "recipe"]).size().max()
    height = min(3.4, 0.9 + 0.09 * most)
    figure, axes = style.grid(
        len(panels), len(recipes), width=1.55, height=height, sharex="row", sharey="row"
    )
    for line, (title, own) in zip(axes, panels, strict=True):
        for ax, recipe in zip(line, recipes, strict=True):
            merges = own[own["recipe"] == recipe].sort_values("gain")
            y = np.arange(len(merges))
            ax.axvline(0, color=style.BASE_COLOUR, lw=1, ls=(0, (5, 2)))
            for verdict, colour in COLOURS.items():
                at = (merges["verdict"] == verdict).to_numpy()
                part = merges[at]
                known = part["low"].notna().to_numpy()
                ax.hlines(y[at][known], part["low"][known], part["high"][known], color=colour,
                          lw=1, alpha=0.7)  # fmt: skip
                ax.plot(part["gain"], y[at], ls="", marker=".", ms=3, color=colour)
            above, below = (int((merges["verdict"] == v).sum()) for v in ("above", "below"))
            ax.set_title(style.method(recipe).label, fontweight="normal")
            ax.set_yticks([])
            ax.set_xlabel(f"{above} above, {below} below\nof {len(merges)}", fontsize=7)
        line[0].set_ylabel(f"{title}\nmerges by gain")
    colours = [(COLOURS["above"], "above the base"), (COLOURS["below"], "below the base")]
    for colour, label in [*colours, (COLOURS["not told apart"], "not told apart")]:
        axes[0, 0].plot([], [], color=colour, lw=2, label=label)
    figure.supxlabel("gain over the base, points", fontsize=8)
    style.legend_below(figure, axes.flat)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.comparisons))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
