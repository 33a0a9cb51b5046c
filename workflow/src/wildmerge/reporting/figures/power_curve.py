"""What could be seen and what was seen: gains against churn, below the curve of what is found."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.analysis import questions

from ..inputs import Inputs
from ..plots import BASE_COLOUR, GREY, panel_row, panels

INPUTS = ("comparisons", "scores")
CAPTION = """
Gain over the base, up or down, of each merge, against its churn, the share of questions on which
it differs from its base. A merge that differs on few questions shows no gain beyond them (dotted).
The curves are the smallest true gain that is found in four of five studies, by a test of its own
(solid) and after correction for all merges of the panel (broken).
"""


def draw(inputs: Inputs) -> Figure:
    """A panel a base and suite, a mark a merge, two curves."""
    looks, asked = inputs.looks, _questions(inputs.scores)
    rows = inputs.comparisons
    rows = rows[(rows["reference"] == "base") & (rows["recipe"] != "identity")]
    total = [asked[key] for key in zip(rows["base"], rows["suite"], strict=True)]
    rows = rows.assign(churn=100 * rows["differing"].to_numpy() / np.array(total))

    def panel(ax: Axes, own: pd.DataFrame) -> None:
        for recipe in looks.order(own["recipe"]):
            look, merges = looks.of(recipe), own[own["recipe"] == recipe]
            ax.scatter(merges["churn"], merges["gain"].abs(), s=14, marker=look.marker,
                       color=look.colour, alpha=0.6, lw=0, label=looks.label(recipe))  # fmt: skip
        churn = np.linspace(0, max(1.0, 1.05 * float(own["churn"].max())), 200)
        told = own[own["churn"] > 0]
        # Of a merge: its standard error over the root of its churn, much the same for all.
        scale = float((told["se_clustered"] / np.sqrt(told["churn"])).median()) if len(told) else 0
        for tests, dash, label in ((1, "-", "alone"), (len(own), (0, (4, 2)), "corrected")):
            seen = questions.smallest_seen(scale * np.sqrt(churn), tests)
            ax.plot(churn, seen, color=BASE_COLOUR, lw=1, ls=dash, label=f"seen, {label}")
        top = ax.get_ylim()[1]
        ax.plot(churn, churn, color=GREY, lw=0.8, ls=":", label="no more can be gained")
        ax.set_ylim(0, top)
        ax.set_xlim(0)

    return panel_row(
        panels(rows), panel, "churn, % of questions", "gain, points, up or down",
        size=(2.9, 3.6), alone=3.8,
    )  # fmt: skip


def _questions(scores: pd.DataFrame) -> dict[tuple[str, str], int]:
    """(base, suite) -> how many questions were asked."""
    once = scores[scores["subset"] == "base"]
    return once.groupby(["base", "suite"])["questions"].sum().to_dict()
