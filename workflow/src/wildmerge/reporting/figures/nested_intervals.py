"""Each method's mean gain with one interval inside the other: questions, draws, checkpoints."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inputs import Inputs
from ..plots import GREY, grid, legend_below, near_square, panels, without_axes, zero_line

INPUTS = ("answers",)
CAPTION = """
Mean gain over the base of all merges of a method, and how far it can be trusted: with other
questions of the same tasks (thick), other subsets of the same checkpoints besides (medium), other
checkpoints besides (thin). For a mean over bases the thin line is about other bases. A population
that a study can't speak of has no line.
"""
POPULATIONS = [
    ("questions", 5.0, "95 % over questions"),
    ("both", 2.6, "and draws"),
    ("checkpoints", 1.0, "and other checkpoints (bases)"),
]


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a row a method, three lines of falling width."""
    answers, looks = inputs.answers, inputs.looks
    answers = answers[answers["reference"] == "base"]
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
        zero_line(ax)
        for row in rows.to_dict("records"):
            _row(ax, row, recipes.index(row["recipe"]), inputs)
        ax.set_yticks(range(len(recipes)), [looks.label(recipe) for recipe in recipes])
        ax.set_ylim(len(recipes) - 0.5, -0.5)
        ax.set_title(title)
        ax.set_xlabel("mean gain over the base, points")
    for _, width, label in POPULATIONS:
        axes.flat[0].plot([], [], color=GREY, lw=width, label=label)
    legend_below(figure, axes.flat[:1])
    return figure


def _row(ax: Axes, row: dict, y: int, inputs: Inputs) -> None:
    """The lines and the mark of one method."""
    look = inputs.looks.of(row["recipe"])
    for name, width, _ in reversed(POPULATIONS):
        if name == "checkpoints" and row["base"] == "average":
            name = "bases"
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        if not np.isnan(low):
            ax.hlines(y, low, high, color=look.colour, lw=width, alpha=0.55)
    edge = {"mfc": "white"} if look.hollow else {"mec": "white", "mew": 0.6}
    ax.plot(row["gain"], y, ls="", marker=look.marker, color=look.colour, ms=5, **edge)
