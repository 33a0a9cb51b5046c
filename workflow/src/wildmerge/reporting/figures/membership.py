"""Which checkpoints help or hurt: the effect of membership on the gain, at equal size of merge."""

import numpy as np

from wildmerge.analysis import stats
from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job

SEED = 0  # of the bootstrap


def effects(merges):
    """merges: rows of merges.csv of one base and suite. Returns the names of the checkpoints, the
    recipes, the effects (checkpoints, recipes) in points, NaN where the draws are too few, and
    whether their 95 % interval over draws leaves out zero.
    """
    drawn = merges[(merges["draw"] > 0)].dropna(subset="gain")
    names = sorted(set(";".join(drawn["members"]).split(";")) - {""})
    recipes = style.order(drawn["recipe"])
    effect = np.full((len(names), len(recipes)), np.nan)
    clear = np.zeros(effect.shape, bool)
    for column, recipe in enumerate(recipes):
        own = drawn[drawn["recipe"] == recipe]
        member = np.array([[name in row.split(";") for name in names] for row in own["members"]])
        found = stats.membership_effect(own["gain"].to_numpy(), member, own["n"].to_numpy(), SEED)
        if found:
            effect[:, column] = found[0]
            clear[:, column] = (found[1] > 0).all(1) | (found[1] < 0).all(1)
    return names, recipes, effect, clear


def draw(merges):
    """merges: rows of merges.csv. Returns the figure: a panel a base and suite, checkpoints by
    methods; effects whose interval leaves out zero are marked with a star.
    """
    panels = style.panels(merges)
    found = [effects(rows) for _, rows in panels]
    rows = max(len(names) if np.isfinite(effect).any() else 0 for names, _, effect, _ in found)
    shape = style.near_square(len(panels)) if len(panels) > 2 else (1, len(panels))
    figure, axes = style.grid(*shape, width=4.9, height=0.8 + (0.5 + 0.24 * rows) * (rows > 0))
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, _), (names, recipes, effect, clear) in zip(
        axes.flat, panels, found, strict=False
    ):
        ax.set_title(title)
        if np.isnan(effect).all():
            ax.axis("off")
            ax.text(0, 0.5, "too few draws to tell the checkpoints apart", color=style.GREY,
                    transform=ax.transAxes)  # fmt: skip
            continue
        labels = [
            [style.signed(value) + ("*" if star else "") for value, star in zip(*line, strict=True)]
            for line in zip(effect, clear, strict=True)
        ]
        methods = [style.method(recipe).label for recipe in recipes]
        limit = max(0.1, np.nanpercentile(np.abs(effect), 95))
        image = style.heatmap(ax, effect, labels, names, methods, limit)
        figure.colorbar(image, ax=ax, label="effect on the gain, points", extend="both", pad=0.01)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.merges))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
