"""Shares of merges above their base, beside what they would be without any gain."""

import numpy as np
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import GREY, grid, legend_below, near_square, panels, without_axes

INPUTS = ("answers",)
CAPTION = """
Share of a method's merges that score above the base (mark), with its 95 % interval over questions
(line), on the range that 95 of 100 studies without any gain show (grey): merges share the base and
the questions, and so go up or down together.
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a row a method."""
    answers, looks = inputs.answers, inputs.looks
    answers = answers[(answers["reference"] == "base") & (answers["base"] != "average")]
    recipes, drawn = looks.order(answers["recipe"]), panels(answers)
    shape = (1, len(drawn)) if len(drawn) <= 5 else near_square(len(drawn))
    figure, axes = grid(
        *shape,
        width=4.4 if len(drawn) == 1 else 2.9,
        height=0.26 * len(recipes) + 1.2,
        sharey=True,
    )
    without_axes(axes.flat[len(drawn) :])
    for ax, (title, rows) in zip(axes.flat, drawn, strict=False):
        ax.axvline(50, color=GREY, lw=0.8)
        for row in rows.itertuples():
            look, y = looks.of(row.recipe), recipes.index(row.recipe)
            if not np.isnan(row.share_null_low):
                ax.barh(y, row.share_null_high - row.share_null_low, left=row.share_null_low,
                        height=0.7, color="#D9D9D9", lw=0)  # fmt: skip
            ax.hlines(
                y, row.share_questions_low, row.share_questions_high, color=look.colour, lw=1.6
            )
            edge = {"mfc": "white"} if look.hollow else {"mec": "white", "mew": 0.6}
            ax.plot(row.share, y, ls="", marker=look.marker, color=look.colour, ms=5.5, **edge)
        ax.set_yticks(range(len(recipes)), [looks.label(recipe) for recipe in recipes])
        ax.set_ylim(len(recipes) - 0.5, -0.5)
        ax.set_xlim(-3, 103)
        ax.set_title(title)
        ax.set_xlabel("merges above the base, %")
    first = axes.flat[0]
    first.fill_between([], [], color="#D9D9D9", lw=0, label="without any gain, 95 of 100 studies")
    first.plot([], [], color=GREY, lw=1.6, label="95 % over questions")
    legend_below(figure, [first])
    return figure
