"""Which checkpoints help or hurt: the effect of membership on the gain, at equal size of merge."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wildmerge.analysis import stats

from ..inputs import Inputs
from ..looks import Looks
from ..numbers import signed
from ..plots import GREY, grid, heatmap, near_square, panels, without_axes

INPUTS = ("merges",)
CAPTION = """
How much better (or worse) the merges of a method are with a checkpoint than without it, at equal
size and relative to the average checkpoint (least squares over the draws). A star marks effects
whose 95 % interval over draws leaves out zero; with so many cells, one in twenty does by chance.
"""
SEED = 0  # of the bootstrap


class Effects(NamedTuple):
    """What membership does in the merges of one base on one suite.

    Attributes:
        names: the checkpoints.
        recipes: in order.
        effect: (checkpoints, recipes), points; NaN where the draws are too few.
        clear: (checkpoints, recipes) bool, whether the 95 % interval over draws leaves out zero.
    """

    names: list[str]
    recipes: list[str]
    effect: np.ndarray
    clear: np.ndarray


def effects(merges: pd.DataFrame, looks: Looks) -> Effects:
    """The effects of membership.

    Args:
        merges: rows of merges.csv of one base and suite.
        looks: of the study.
    """
    drawn = merges[(merges["draw"] > 0)].dropna(subset="gain")
    names = sorted(set(";".join(drawn["members"]).split(";")) - {""})
    recipes = looks.order(drawn["recipe"])
    effect = np.full((len(names), len(recipes)), np.nan)
    clear = np.zeros(effect.shape, bool)
    for column, recipe in enumerate(recipes):
        own = drawn[drawn["recipe"] == recipe]
        member = np.array([[name in row.split(";") for name in names] for row in own["members"]])
        found = stats.membership_effect(own["gain"].to_numpy(), member, own["n"].to_numpy(), SEED)
        if found:
            effect[:, column] = found[0]
            clear[:, column] = (found[1] > 0).all(1) | (found[1] < 0).all(1)
    return Effects(names, recipes, effect, clear)


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, checkpoints by methods.

    Effects whose interval leaves out zero are marked with a star.
    """
    looks, drawn = inputs.looks, panels(inputs.merges)
    found = [effects(rows, looks) for _, rows in drawn]
    rows = max(len(e.names) if np.isfinite(e.effect).any() else 0 for e in found)
    shape = near_square(len(drawn)) if len(drawn) > 2 else (1, len(drawn))
    figure, axes = grid(*shape, width=4.9, height=0.8 + (0.5 + 0.24 * rows) * (rows > 0))
    without_axes(axes.flat[len(drawn) :])
    for ax, (title, _), (names, recipes, effect, clear) in zip(
        axes.flat, drawn, found, strict=False
    ):
        ax.set_title(title)
        if np.isnan(effect).all():
            ax.axis("off")
            ax.text(0, 0.5, "too few draws to compare the checkpoints", color=GREY,
                    transform=ax.transAxes)  # fmt: skip
            continue
        labels = [
            [signed(value) + ("*" if star else "") for value, star in zip(*line, strict=True)]
            for line in zip(effect, clear, strict=True)
        ]
        methods = [looks.label(recipe) for recipe in recipes]
        limit = max(0.1, float(np.nanpercentile(np.abs(effect), 95)))
        image = heatmap(ax, effect, labels, names, methods, limit)
        figure.colorbar(image, ax=ax, label="effect on the gain, points", extend="both", pad=0.01)
    return figure
