"""Figure 4: L2 distance of merges from the base by number of checkpoints; band: sd over draws."""

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def draw(merges):
    """merges: rows of merges.csv. Returns the figure: a panel a base, logarithmic norm."""
    merges = merges.drop_duplicates(["base", "subset", "recipe"])  # a norm has no suite
    panels = style.panels(merges.assign(suite=""))
    figure, axes = style.grid(1, len(panels), width=3.4 if len(panels) == 1 else 2.7)
    for ax, (title, rows) in zip(axes[0], panels, strict=True):
        ax.set_yscale("log")
        style.log_ticks(ax.yaxis)
        for recipe in style.order(rows["recipe"]):
            style.by_n(ax, rows, "norm", recipe)
        ax.set_title(title)
        ax.set_xlabel("merged checkpoints, n")
        ax.set_xticks(sorted(rows.loc[rows["n"] > 1, "n"].unique()))
    axes[0, 0].set_ylabel("L2 norm of the update")
    style.legend_below(figure, axes.flat)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.merges))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
