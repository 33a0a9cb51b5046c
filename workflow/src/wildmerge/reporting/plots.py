"""What the figures share: matplotlib's defaults, panels, lines with bands, heatmaps, saving."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection
from matplotlib.figure import Figure

from wildmerge.files import atomic_file

from .inputs import Inputs
from .looks import Look, Looks, base_label

BASE_COLOUR = "#222222"
GREY = "#666666"
ABOVE, BELOW = "#1A7F4B", "#B3261E"
_BROKEN = (0, (5, 2))  # the dash of the base's line

Panel = tuple[str, pd.DataFrame]  # a title and the rows that are drawn below it


def panels(rows: pd.DataFrame) -> list[Panel]:
    """One panel for each base and suite, the suite in the title where there are several."""
    several = rows["suite"].nunique() > 1
    groups = rows.groupby(["base", "suite"], sort=False)
    return [
        (f"{base_label(base)}, {suite}" if several else base_label(base), own)
        for (base, suite), own in groups
    ]


def grid(
    rows: int, columns: int, width: float = 2.7, height: float = 2.4, **keywords: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels and its axes, (rows, columns).

    Args:
        rows: of panels.
        columns: of panels.
        width: of a panel, inches.
        height: of a panel, inches.
        keywords: given to `plt.subplots`.
    """
    _use_defaults()
    return plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **keywords
    )


def panel_row(
    drawn: Sequence[Panel],
    draw_panel: Callable[[Axes, pd.DataFrame], None],
    xlabel: str,
    ylabel: str = "mean accuracy, %",
    size: tuple[float, float] = (2.7, 2.4),
    alone: float = 3.4,
) -> Figure:
    """Panels beside each other with their titles, and one legend below.

    Args:
        drawn: the panels.
        draw_panel: draws the rows of a panel into its axes.
        xlabel: of every panel.
        ylabel: of the first panel.
        size: width and height of a panel, inches.
        alone: width of a panel that has no other beside it, inches.
    """
    width = alone if len(drawn) == 1 else size[0]
    figure, axes = grid(1, len(drawn), width=width, height=size[1])
    for ax, (title, rows) in zip(axes[0], drawn, strict=True):
        draw_panel(ax, rows)
        ax.set_title(title)
        ax.set_xlabel(xlabel)
    axes[0, 0].set_ylabel(ylabel)
    legend_below(figure, axes.flat)
    return figure


def near_square(count: int) -> tuple[int, int]:
    """Rows and columns for `count` panels: one beside the other up to two, else two a row."""
    return (1, count) if count < 2 else (math.ceil(count / 2), 2)


def zero_line(ax: Axes, horizontal: bool = False, label: str | None = None) -> None:
    """The base as a broken line at a gain of zero."""
    line = ax.axhline if horizontal else ax.axvline
    line(0, color=BASE_COLOUR, lw=1, ls=_BROKEN, label=label)


def base_line(ax: Axes, rows: pd.DataFrame, column: str) -> None:
    """Draw the base's accuracy, `column` of its row, as a broken line, in percent."""
    base = rows.loc[rows["subset"] == "base", column].dropna()
    if len(base):
        ax.axhline(100 * base.iloc[0], color=BASE_COLOUR, lw=1, ls=_BROKEN, label="base")


def by_n(
    ax: Axes,
    rows: pd.DataFrame,
    column: str,
    recipe: str,
    looks: Looks,
    scale: float = 1,
    **keywords: Any,
) -> None:
    """A recipe's mean over draws by n as a line, one standard deviation over draws as a band.

    A size of which one draw was measured has no band.

    Args:
        ax: where it is drawn.
        rows: with columns recipe, n and `column`.
        column: what is drawn.
        recipe: whose rows.
        looks: of the study.
        scale: a factor of the values.
        keywords: of the line, in place of the recipe's look.
    """
    look = looks.of(recipe)
    values = scale * rows.loc[rows["recipe"] == recipe].set_index("n")[column].dropna()
    mean, sd = values.groupby(level=0).mean(), values.groupby(level=0).std().dropna()
    ax.plot(mean.index, mean, label=looks.label(recipe), **(line_of(look) | keywords))
    low = mean[sd.index] - sd
    if ax.get_yscale() == "log":  # where a band that reaches below zero has no place
        low = low.clip(lower=mean[sd.index] / 10)
    high = mean[sd.index] + sd
    ax.fill_between(sd.index, low, high, color=look.colour, alpha=0.15, lw=0)
    if len(sd) == 1:  # a band of one point has no width
        ax.vlines(sd.index, low, high, color=look.colour, alpha=0.5, lw=1)


def line_of(look: Look) -> dict[str, Any]:
    """A look as keywords of matplotlib's `plot`."""
    fill = "white" if look.hollow else look.colour
    return {"color": look.colour, "marker": look.marker, "ls": look.dash, "mfc": fill}


def rows_of_panel(points: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `points` that are of the base and suite of a panel's rows."""
    return points.merge(rows[["base", "suite"]].drop_duplicates(), on=["base", "suite"])


def shade(i: int, count: int) -> tuple[float, float, float, float]:
    """The i-th of `count` colours from light to dark, for an ordered quantity."""
    return plt.get_cmap("viridis_r")(0.15 + 0.85 * i / max(1, count - 1))


def interval_line(ax: Axes, points: pd.DataFrame, x: str, **keywords: Any) -> None:
    """Accuracy in percent over a parameter, with the interval of its difference to the base.

    Args:
        ax: where it is drawn.
        points: rows of `scores.sweep`; without known `low` and `high` there are no bars.
        x: the parameter.
        keywords: of the line; `color` among them.
    """
    points = points.dropna(subset="accuracy").sort_values(x)
    accuracy = 100 * points["accuracy"]
    ax.plot(points[x], accuracy, **keywords)
    known = points["low"].notna()
    base = accuracy - points["gain"]
    low, high = base + points["low"], base + points["high"]
    ax.vlines(
        points.loc[known, x], low[known], high[known], color=keywords["color"], lw=0.8, alpha=0.5
    )


def heatmap(
    ax: Axes,
    values: np.ndarray,
    labels: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    limit: float,
) -> Collection:
    """A heatmap around zero with a text in each cell; NaN cells stay empty, with a dash.

    Args:
        ax: where it is drawn.
        values: (rows, columns).
        labels: the cells' texts, in the same shape; a NaN cell without a text has no dash either.
        rows: their names.
        columns: their names.
        limit: the absolute value that has the full colour.
    """
    import seaborn

    seaborn.heatmap(
        values,
        ax=ax,
        vmin=-limit,
        vmax=limit,
        cmap="RdBu",
        cbar=False,
        annot=np.array(labels),
        fmt="",
        annot_kws={"fontsize": 6.5},
        xticklabels=columns,
        yticklabels=rows,
    )
    ax.set_xticks(ax.get_xticks(), columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    for i, j in np.argwhere(np.isnan(values)):
        if labels[i][j]:
            ax.text(j + 0.5, i + 0.5, "–", ha="center", va="center", fontsize=6.5)
    return ax.collections[0]


# Gram matrices (tensors, k, k) -> values (k, k) with NaN on the diagonal, the cells' texts, the
# value of the full colours.
Pairs = Callable[[np.ndarray], tuple[np.ndarray, list[list[str]], float]]


def pairs_of_checkpoints(
    inputs: Inputs, pairs: Pairs, size: tuple[float, float], label: str, count_tensors: bool = False
) -> Figure:
    """Heatmaps of all pairs of a base's checkpoints, a panel a base.

    Args:
        inputs: with the similarities of all bases.
        pairs: what stands in the cells.
        size: width and height of a panel, inches.
        label: of the colours.
        count_tensors: whether the title tells the number of tensors.
    """
    checkpoints = inputs.checkpoints
    figure, axes = grid(*near_square(len(checkpoints)), width=size[0], height=size[1])
    without_axes(axes.flat[len(checkpoints) :])
    for ax, (base, names) in zip(axes.flat, checkpoints.items(), strict=False):
        gram = inputs.similarities[base].of(names)
        values, labels, limit = pairs(gram)
        numbers = [str(i + 1) for i in range(len(names))]
        rows = [f"{name}  {i}" for i, name in zip(numbers, names, strict=True)]
        image = heatmap(ax, values, labels, rows, numbers, limit)
        ax.set_xticks(ax.get_xticks(), numbers, rotation=0, ha="center")
        ax.set_title(base_label(base) + (f", {len(gram)} tensors" if count_tensors else ""))
        figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02, label=label)
    return figure


def without_axes(rest: Iterable[Axes]) -> None:
    """Hide the places of a grid that no panel fills."""
    for ax in rest:
        ax.axis("off")


def legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels under the figure, every label once, in order of appearance."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        width = 0.6 + 0.065 * max(map(len, entries))  # inches of an entry in 8 point type
        columns = max(1, min(len(entries), int(figure.get_figwidth() / width)))
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns
        )


def log_ticks(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 of each decade, printed as plain numbers."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def save(figure: Figure, pdf: str | Path, png: str | Path) -> None:
    """Write a figure as PDF and PNG, byte for byte the same for the same figure, and close it."""
    with atomic_file(pdf) as part:
        figure.savefig(part, format="pdf", metadata={"CreationDate": None, "ModDate": None})
    with atomic_file(png) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
    plt.close(figure)


def _use_defaults() -> None:
    """Set matplotlib's defaults: small sans type, open axes, fonts embedded as TrueType."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "savefig.dpi": 160,
            "font.family": "DejaVu Sans",
            "font.size": 8,
            "axes.titlesize": 9,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "lines.linewidth": 1.4,
            "lines.markersize": 4.5,
            "pdf.fonttype": 42,
            "svg.hashsalt": "wildmerge",
        }
    )
