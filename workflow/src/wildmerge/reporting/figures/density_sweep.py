"""Figure 17: TIES by the share of each task vector's entries that it keeps."""

import numpy as np

from wildmerge.analysis.scores import read_table, sweep
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def draw(merges, comparisons, recipes):
    """merges, comparisons: the study's tables; recipes: name -> {parameters}. Returns the figure:
    a panel a base, a line a lambda of the sweep; bars, on the recipe's own lambda, are 95 %
    intervals over questions of the difference to the base.
    """
    points = sweep(merges, comparisons, recipes, "ties")
    lambdas = sorted(points["lambda"].unique())
    panels = style.panels(merges)
    figure, axes = style.grid(1, len(panels), width=3.4 if len(panels) == 1 else 2.7)
    for ax, (title, rows) in zip(axes[0], panels, strict=True):
        style.base_line(ax, rows, "accuracy")
        own = style.of(points, rows)
        for i, value in enumerate(lambdas):
            own_choice = bool(value == recipes["ties"]["parameters"]["lambda"])
            look = {"color": style.shade(i, len(lambdas)), "marker": style.METHODS["ties"].marker}
            look |= {"lw": 2} if own_choice else {"lw": 0.9, "ms": 3}
            line = own[own["lambda"] == value].assign(density=lambda f: 100 * f["density"])
            if not own_choice:  # bars on every line would hide each other
                line = line.assign(low=np.nan, high=np.nan)
            label = f"lambda {value:g}" + " (the recipe's)" * own_choice
            style.interval_line(ax, line, "density", label=label, **look)
        ax.set_title(title)
        ax.set_xlabel("density, % of entries kept")
    axes[0, 0].set_ylabel("mean accuracy, %")
    style.legend_below(figure, axes.flat)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        tables = read_table(snakemake.input.merges), read_table(snakemake.input.comparisons)
        figure = draw(*tables, snakemake.params.recipes)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
