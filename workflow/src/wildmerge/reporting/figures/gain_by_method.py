"""The answers: each method's mean gain over the base with its intervals, all merges together."""

import numpy as np
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import grid, near_square, panels, without_axes, zero_line

INPUTS = ("answers",)
CAPTION = """
Mean gain over the base of all merges of a method. The broad bar is the 95 % interval over questions
(other questions of the same tasks, these merges), the thin one over draws (other subsets of the
same sizes, these questions); a mean over bases has no interval over draws.
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a row a method.

    The thick bar is the 95 % interval over questions, the thin one over draws.
    """
    answers, looks = inputs.answers, inputs.looks
    answers = answers[answers["reference"] == "base"]
    recipes, drawn = looks.order(answers["recipe"]), panels(answers)
    shape = (1, len(drawn)) if len(drawn) <= 5 else near_square(len(drawn))
    figure, axes = grid(
        *shape,
        width=4.4 if len(drawn) == 1 else 2.9,
        height=0.26 * len(recipes) + 0.9,
        sharey=True,
    )
    without_axes(axes.flat[len(drawn) :])
    for ax, (title, rows) in zip(axes.flat, drawn, strict=False):
        zero_line(ax)
        for row in rows.itertuples():
            look, y = looks.of(row.recipe), recipes.index(row.recipe)
            if not np.isnan(row.questions_low):
                ax.hlines(y, row.questions_low, row.questions_high, color=look.colour, lw=4,
                          alpha=0.4)  # fmt: skip
            if not np.isnan(row.draws_low):
                ax.hlines(y, row.draws_low, row.draws_high, color=look.colour, lw=1.4)
            edge = {"mfc": "white"} if look.hollow else {"mec": "white", "mew": 0.6}
            ax.plot(row.gain, y, ls="", marker=look.marker, color=look.colour, ms=5, **edge)
        ax.set_yticks(range(len(recipes)), [looks.label(recipe) for recipe in recipes])
        ax.set_ylim(len(recipes) - 0.5, -0.5)
        ax.set_title(title)
        ax.set_xlabel("mean gain over the base, points")
    return figure
