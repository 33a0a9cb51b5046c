"""Gain over the base against the distance from it: does going far ruin a merge?"""

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def draw(merges):
    """merges: rows of merges.csv. Returns the figure: a panel a base and suite, a mark a merge;
    larger marks are merges of more checkpoints.
    """
    merged = merges[merges["recipe"] != "identity"]
    panels = style.panels(merged)
    figure, axes = style.grid(1, len(panels), width=3.6 if len(panels) == 1 else 2.8, height=2.8)
    for ax, (title, rows) in zip(axes[0], panels, strict=True):
        ax.axhline(0, color=style.BASE_COLOUR, lw=1, ls=(0, (5, 2)), label="base")
        for recipe in style.order(rows["recipe"]):
            look, own = style.method(recipe), rows[rows["recipe"] == recipe]
            ax.scatter(own["norm"], own["gain"], s=4 + 2.2 * own["n"], marker=look.marker,
                       color=look.colour, alpha=0.6, lw=0, label=look.label)  # fmt: skip
        if (rows["norm"] > 0).any():
            ax.set_xscale("log")
            style.log_ticks(ax.xaxis)
        ax.set_title(title)
        ax.set_xlabel("L2 norm of the update")
    axes[0, 0].set_ylabel("gain over the base, points")
    style.legend_below(figure, axes.flat)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.merges))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
