"""Figures 13-16: accuracy against the norm of the update for TIES by density and lambda."""

from wildmerge.analysis.scores import read_table, sweep
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job

MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "h"]


def draw(merges, comparisons, recipes):
    """merges, comparisons: the study's tables; recipes: name -> {parameters}. Returns the figure:
    a panel a base, a line a density through its lambdas, which colours tell.
    """
    points = sweep(merges, comparisons, recipes, "ties")
    lambdas, densities = sorted(points["lambda"].unique()), sorted(points["density"].unique())
    panels = style.panels(merges)
    figure, axes = style.grid(1, len(panels), width=3.4 if len(panels) == 1 else 2.7)
    for ax, (title, rows) in zip(axes[0], panels, strict=True):
        style.base_line(ax, rows, "accuracy")
        own = style.of(points, rows)
        for marker, density in zip(MARKERS * len(densities), densities, strict=False):
            line = own[own["density"] == density].sort_values("lambda")
            ax.plot(line["norm"], 100 * line["accuracy"], color="#BBBBBB", lw=0.8, zorder=1)
            ax.plot([], [], color=style.GREY, ls="", marker=marker, label=f"density {density:g}")
            for i, value in enumerate(lambdas):
                at = line[line["lambda"] == value]
                ax.plot(at["norm"], 100 * at["accuracy"], ls="", marker=marker,
                        color=style.shade(i, len(lambdas)))  # fmt: skip
        for i, value in enumerate(lambdas):
            ax.plot([], [], lw=4, color=style.shade(i, len(lambdas)), label=f"lambda {value:g}")
        ax.set_title(title)
        ax.set_xlabel("L2 norm of the update")
    axes[0, 0].set_ylabel("mean accuracy, %")
    style.legend_below(figure, axes.flat)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        tables = read_table(snakemake.input.merges), read_table(snakemake.input.comparisons)
        figure = draw(*tables, snakemake.params.recipes)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
