"""Figures 3 and 6: mean accuracy by number of merged checkpoints; the band is the sd over draws."""

from wildmerge import style
from wildmerge.scores import read_table


def draw(merges):
    """merges: rows of merges.csv. Returns the figure: a row a family of methods, a column a base;
    for a single base the families stand side by side."""
    recipes = style.order(merges["recipe"])
    families = [
        [r for r in recipes if style.family(r) in names] for names in style.FAMILIES.values()
    ]
    families.append([r for r in recipes if not any(r in rows for rows in families)])
    families = [names for names in families if names]
    panels = style.panels(merges)
    beside = len(panels) == 1
    shape = (1, len(families)) if beside else (len(families), len(panels))
    figure, axes = style.grid(*shape, width=3.4 if beside else 2.7)
    for column, (title, rows) in enumerate(panels):
        for row, names in enumerate(families):
            ax = axes[0, row] if beside else axes[row, column]
            panel(ax, rows, names)
            if row == 0 or beside:
                ax.set_title(title)
            if (row if beside else column) == 0:
                ax.set_ylabel("mean accuracy, %")
            if beside or row == len(families) - 1:
                ax.set_xlabel("merged checkpoints, n")
    style.legend_below(figure, axes.flat)
    return figure


def panel(ax, rows, recipes):
    """One panel: the base as a line, the single checkpoints at n = 1, a line a recipe."""
    single = rows[(rows["n"] == 1) & (rows["recipe"] == "identity")]
    base = rows.loc[rows["subset"] == "base", "accuracy"].dropna()
    if len(base):
        ax.axhline(100 * base.iloc[0], color=style.BASE_COLOUR, lw=1, ls=(0, (5, 2)), label="base")
    if single["accuracy"].notna().any():
        x = 1 + 0 * single["accuracy"]
        ax.plot(x, 100 * single["accuracy"], ls="", marker="_", ms=7, color=style.SINGLE.colour,
                label="single checkpoints")  # fmt: skip
    for recipe in recipes:
        look = style.method(recipe)
        by_n = rows[rows["recipe"] == recipe].groupby("n")["accuracy"]
        mean, sd = 100 * by_n.mean().dropna(), 100 * by_n.std().dropna()
        ax.plot(mean.index, mean, color=look.colour, marker=look.marker, ls=look.dash,
                label=look.label)  # fmt: skip
        centre = mean[sd.index]
        ax.fill_between(sd.index, centre - sd, centre + sd, color=look.colour, alpha=0.15, lw=0)
    ax.set_xticks(sorted(rows.loc[rows["n"] > 0, "n"].unique()))


if __name__ == "__main__":
    figure = draw(read_table(snakemake.input.merges))
    style.save(figure, snakemake.output.pdf, snakemake.output.png)
