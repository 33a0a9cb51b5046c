"""Figure 18: Subspace Boosting by its threshold beta."""

from wildmerge.analysis.scores import read_table, sweep
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def draw(merges, comparisons, recipes):
    """merges, comparisons: the study's tables; recipes: name -> {parameters}. Returns the figure:
    a panel a base, a line a boosted recipe; bars are 95 % intervals over questions of the
    difference to the base.
    """
    swept = {style.family(recipe) for recipe in merges["recipe"] if "-beta" in recipe}
    names = style.order(swept) or ["task_arithmetic_sb"]
    points = {name: sweep(merges, comparisons, recipes, name) for name in names}
    panels = style.panels(merges)
    figure, axes = style.grid(1, len(panels), width=3.4 if len(panels) == 1 else 2.7)
    for ax, (title, rows) in zip(axes[0], panels, strict=True):
        style.base_line(ax, rows, "accuracy")
        for name in names:
            look = style.method(name)
            style.interval_line(ax, style.of(points[name], rows), "beta", label=look.label,
                                color=look.colour, marker=look.marker, ls=look.dash)  # fmt: skip
        ax.set_title(title)
        ax.set_xlabel("beta")
    axes[0, 0].set_ylabel("mean accuracy, %")
    style.legend_below(figure, axes.flat)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        tables = read_table(snakemake.input.merges), read_table(snakemake.input.comparisons)
        figure = draw(*tables, snakemake.params.recipes)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
