"""The answers: each method's mean gain over the base with its intervals, all merges together."""

import numpy as np

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def draw(answers):
    """answers: rows of answers.csv. Returns the figure: a panel a base and suite, a row a method;
    the thick bar is the 95 % interval over questions, the thin one over draws.
    """
    answers = answers[answers["reference"] == "base"]
    recipes = style.order(answers["recipe"])
    panels = style.panels(answers)
    height = 0.26 * len(recipes) + 0.9
    shape = (1, len(panels)) if len(panels) <= 5 else style.near_square(len(panels))
    width = 4.4 if len(panels) == 1 else 2.9
    figure, axes = style.grid(*shape, width=width, height=height, sharey=True)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, rows) in zip(axes.flat, panels, strict=False):
        ax.axvline(0, color=style.BASE_COLOUR, lw=1, ls=(0, (5, 2)))
        for row in rows.itertuples():
            look, y = style.method(row.recipe), recipes.index(row.recipe)
            if not np.isnan(row.questions_low):
                ax.hlines(y, row.questions_low, row.questions_high, color=look.colour, lw=4,
                          alpha=0.4)  # fmt: skip
            if not np.isnan(row.draws_low):
                ax.hlines(y, row.draws_low, row.draws_high, color=look.colour, lw=1.4)
            edge = {"mfc": "white"} if look.hollow else {"mec": "white", "mew": 0.6}
            ax.plot(row.gain, y, ls="", marker=look.marker, color=look.colour, ms=5, **edge)
        ax.set_yticks(range(len(recipes)), [style.method(r).label for r in recipes])
        ax.set_ylim(len(recipes) - 0.5, -0.5)
        ax.set_title(title)
        ax.set_xlabel("mean gain over the base, points")
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = draw(read_table(snakemake.input.answers))
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
