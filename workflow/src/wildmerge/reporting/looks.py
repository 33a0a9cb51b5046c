"""How everything looks: name, order, colour and marker of every method; one way to save."""

import math
import re
from typing import NamedTuple

import matplotlib
import matplotlib.ticker
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from wildmerge.files import atomic_file


class Method(NamedTuple):
    """The look of a merge method: label in the paper, colour, marker, dash, hollow markers."""

    label: str
    colour: str
    marker: str
    dash: str = "-"
    hollow: bool = False


# Okabe and Ito's colours, told apart by colour-blind people; a boosted method has the lighter
# relative of its parent's colour and a broken line. Markers carry the difference in grey.
METHODS = {
    "task_arithmetic": Method("TA", "#0072B2", "o"),
    "model_stock": Method("Model Stock", "#009E73", "s"),
    "ties": Method("TIES", "#D55E00", "^"),
    "task_arithmetic_sb": Method("TA + SB", "#56B4E9", "D", "--"),
    "ties_sb": Method("TIES + SB", "#E69F00", "v", "--"),
    "tsv_m": Method("TSV-M", "#CC79A7", "P"),
    "iso_c": Method("Iso-C", "#444444", "X"),
}
FAMILIES = {
    "weight interpolation": ["task_arithmetic", "model_stock", "ties"],
    "subspace": ["task_arithmetic_sb", "ties_sb", "tsv_m", "iso_c"],
}
SINGLE = Method("checkpoint", "#888888", ".")
BASE_COLOUR = "#222222"
BASES = {
    "average": "Mean over bases",
    "llama-3.2-3b": "Llama 3.2 3B",
    "llama-3.1-8b": "Llama 3.1 8B",
    "qwen3-4b": "Qwen3 4B",
    "qwen3-8b": "Qwen3 8B",
    "smollm2-135m": "SmolLM2 135M",
}
_SPARE = [("#6A3D9A", "h"), ("#A6761D", "<"), ("#1B7837", ">"), ("#B2182B", "p"), ("#2166AC", "d")]
GREY = "#666666"
ABOVE, BELOW = "#1A7F4B", "#B3261E"


def family(recipe: str) -> str:
    """The recipe that a sweep point varies: `ties` for `ties-density0.3`."""
    return recipe.split("-", 1)[0]


def method(recipe: str) -> Method:
    """The look of a recipe; a point of its sweep is dotted and hollow, and says what differs."""
    if recipe == "identity":
        return SINGLE
    name, _, differs = recipe.partition("-")
    if name in METHODS:
        look = METHODS[name]
    else:
        colour, marker = _SPARE[sum(name.encode()) % len(_SPARE)]
        look = Method(name.replace("_", " "), colour, marker, ":")
    if differs:
        # `density0.3-combine_sum` reads `density 0.3, combine sum`.
        parts = [re.sub(r"_?([0-9.]+|(?<=_)[a-z]+)$", r" \1", p) for p in differs.split("-")]
        label = f"{look.label} ({', '.join(parts)})".replace("_ ", " ")
        look = look._replace(label=label, dash=":", hollow=True)
    return look


def order(recipes) -> list[str]:
    """The distinct recipes in the paper's order, then others by name; `identity` is left out."""
    known = list(METHODS)
    recipes = sorted(set(recipes) - {"identity"})
    return sorted(recipes, key=lambda r: known.index(family(r)) if family(r) in known else 99)


def base_label(base: str) -> str:
    """A base's printed name."""
    return BASES.get(base, base)


def panels(merges: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One (title, rows) for each base and suite, the suite in the title where there are several."""
    several = merges["suite"].nunique() > 1
    groups = merges.groupby(["base", "suite"], sort=False)
    return [
        (f"{base_label(base)}, {suite}" if several else base_label(base), rows)
        for (base, suite), rows in groups
    ]


def use() -> None:
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


def grid(rows: int, columns: int, width: float = 2.7, height: float = 2.4, **keywords):
    """A figure of rows x columns panels of the given size in inches; axes always 2-D."""
    use()
    return plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **keywords
    )


def base_line(ax, rows: pd.DataFrame, column: str) -> None:
    """Draw the base's accuracy, `column` of its row, as a broken line, in percent."""
    base = rows.loc[rows["subset"] == "base", column].dropna()
    if len(base):
        ax.axhline(100 * base.iloc[0], color=BASE_COLOUR, lw=1, ls=(0, (5, 2)), label="base")


def by_n(ax, rows: pd.DataFrame, column: str, recipe: str, scale: float = 1, **keywords) -> None:
    """A recipe's mean over draws by n as a line, one standard deviation over draws as a band.

    A size of which one draw was measured has no band.
    """
    look = method(recipe)
    values = scale * rows.loc[rows["recipe"] == recipe].set_index("n")[column].dropna()
    mean, sd = values.groupby(level=0).mean(), values.groupby(level=0).std().dropna()
    keywords = {"color": look.colour, "marker": look.marker, "ls": look.dash} | keywords
    keywords["mfc"] = "white" if look.hollow else look.colour
    ax.plot(mean.index, mean, label=look.label, **keywords)
    low = mean[sd.index] - sd
    if ax.get_yscale() == "log":  # where a band that reaches below zero has no place
        low = low.clip(lower=mean[sd.index] / 10)
    high = mean[sd.index] + sd
    ax.fill_between(sd.index, low, high, color=look.colour, alpha=0.15, lw=0)
    if len(sd) == 1:  # a band of one point has no width
        ax.vlines(sd.index, low, high, color=look.colour, alpha=0.5, lw=1)


def near_square(count: int) -> tuple[int, int]:
    """Rows and columns for `count` panels: one beside the other up to two, else two a row."""
    return (1, count) if count < 2 else (math.ceil(count / 2), 2)


def of(points: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `points` that are of the base and suite of a panel's rows."""
    return points.merge(rows[["base", "suite"]].drop_duplicates(), on=["base", "suite"])


def shade(i: int, count: int):
    """The i-th of `count` colours from light to dark, for an ordered quantity."""
    return plt.get_cmap("viridis_r")(0.15 + 0.85 * i / max(1, count - 1))


def interval_line(ax, points: pd.DataFrame, x: str, **keywords) -> None:
    """Accuracy in percent over parameter `x`, with the interval of its difference to the base.

    points: rows of `scores.sweep`; without known `low` and `high` there are no bars.
    """
    points = points.dropna(subset="accuracy").sort_values(x)
    accuracy = 100 * points["accuracy"]
    ax.plot(points[x], accuracy, **keywords)
    known = points["low"].notna()
    base = accuracy - points["gain"]
    low, high = base + points["low"], base + points["high"]
    ax.vlines(points.loc[known, x], low[known], high[known], color=keywords["color"], lw=0.8,
              alpha=0.5)  # fmt: skip


def heatmap(ax, values, labels, rows, columns, limit: float):
    """A heatmap around zero with a text in each cell; NaN cells stay empty, with a dash.

    values: (rows, columns); labels: the same, texts; limit: the value of the full colours.
    Returns the image.
    """
    image = ax.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    for i, line in enumerate(labels):
        for j, text in enumerate(line):
            known = values[i][j] == values[i][j]
            strong = known and abs(values[i][j]) > 0.65 * limit
            colour = "white" if strong else "black"
            shown = text if known or not text else "–"
            ax.text(j, i, shown, ha="center", va="center", fontsize=6.5, color=colour)
    return image


def legend_below(figure, axes) -> None:
    """One legend for all panels under the figure, every label once, in order of appearance."""
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        width = 0.6 + 0.065 * max(map(len, entries))  # inches of an entry in 8 point type
        columns = max(1, min(len(entries), int(figure.get_figwidth() / width)))
        figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns)


def log_ticks(axis) -> None:
    """Ticks at 1, 2 and 5 of each decade, printed as plain numbers."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign; a dash for a missing one, no sign on what rounds to zero."""
    if value != value:
        return "–"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def interval(low: float, high: float) -> str:
    """An interval in print, `+0.12 to +0.80`; a dash where there is none."""
    return "–" if low != low else f"{signed(low)} to {signed(high)}"


def save(figure, pdf, png) -> None:
    """Write a figure as PDF and PNG, byte for byte the same for the same figure, and close it."""
    with atomic_file(pdf) as part:
        figure.savefig(part, format="pdf", metadata={"CreationDate": None, "ModDate": None})
    with atomic_file(png) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
    plt.close(figure)
