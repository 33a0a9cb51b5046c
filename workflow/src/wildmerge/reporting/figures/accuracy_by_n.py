"""Figures 3 and 6: mean accuracy by number of merged checkpoints; the band is the sd over draws."""

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def draw(merges):
    """merges: rows of merges.csv. Returns the figure: a row a family of methods, a column a base;
    for a single base the families stand side by side.
    """
    recipes = style.order(merges["recipe"])
    others = {style.family(recipe) for recipe in recipes} - set(style.METHODS)
    families = style.FAMILIES | {"other": others}
    families = {
        name: [recipe for recipe in recipes if style.family(recipe) in names]
        for name, names in families.items()
    }
    families = {name: found for name, found in families.items() if found}
    panels = style.panels(merges)
    beside = len(panels) == 1
    shape = (1, len(families)) if beside else (len(families), len(panels))
    figure, axes = style.grid(*shape, width=3.4 if beside else 2.7)
    for column, (title, rows) in enumerate(panels):
        for row, (name, names) in enumerate(families.items()):
            ax = axes[0, row] if beside else axes[row, column]
            panel(ax, rows, names)
            if row == 0 or beside:
                ax.set_title(f"{title}, {name}" if beside else title)
            if (row if beside else column) == 0:
                ax.set_ylabel("mean accuracy, %")
            if beside or row == len(families) - 1:
                ax.set_xlabel("merged checkpoints, n")
    style.legend_below(figure, axes.flat)
    return figure


def panel(ax, rows, recipes):
    """One panel: the base as a line, the single checkpoints at n = 1, a line a recipe."""
    style.base_line(ax, rows, "accuracy")
    single = rows[(rows["n"] == 1) & (rows["recipe"] == "identity")]["accuracy"].dropna()
    if len(single):
        ax.plot([1] * len(single), 100 * single, ls="", marker="_", ms=7,
                color=style.SINGLE.colour, label="single checkpoints")  # fmt: skip
    for recipe in recipes:
        style.by_n(ax, rows, "accuracy", recipe, scale=100)
    ax.set_xticks(sorted(rows.loc[rows["n"] > 0, "n"].unique()))


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.merges))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
