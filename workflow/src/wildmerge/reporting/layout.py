"""Tables 1-3 of the paper: share of merges above a reference and mean gain, by method and n."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from wildmerge.files import atomic_file

from .looks import Looks, base_label
from .numbers import MISSING, signed
from .templates import render

KEYS = ["base", "suite", "recipe", "n"]
AVERAGE = "average"


# A row of cells -> the texts that stand small below its cell.
Small = Callable[[Any], tuple[str, ...]]
# What `layout` gives: the header's texts, and the rows (base, method, accuracy, cells), where a
# cell is its text and the small texts below it.
Laid = tuple[list[str], list[tuple[str, str, str, list[tuple[str, ...]]]]]
Made = tuple[pd.DataFrame, str, str]  # a table: its tidy cells, its LaTeX, its HTML


def success(merges: pd.DataFrame, gain: str, looks: Looks) -> pd.DataFrame:
    """Share of models above a reference and their mean gain, for each base, suite, recipe and n.

    Args:
        merges: rows of merges.csv.
        gain: the column to judge by, `gain` (Tables 1, 3) or `gain_over_best` (Table 2), points.
        looks: of the study, for the paper's order.

    Returns:
        Columns base, suite, recipe, n, combinations (models with a score), share (percent of them
        above zero), gain (points), planned (models that the study planned); n = 1 holds the single
        checkpoints for every recipe, and the rows of base `average` are plain means over bases, as
        in the paper, and absent where a base has no score. Recipes of no method in the paper come
        last, by name.
    """
    single = merges[(merges["n"] == 1) & (merges["recipe"] == "identity")]
    merged = merges[merges["recipe"] != "identity"]
    recipes = merged["recipe"].unique()
    rows = pd.concat([merged, *(single.assign(recipe=recipe) for recipe in recipes)])
    cells = rows.groupby(KEYS, sort=False)[gain].agg(
        combinations="count",
        share=lambda gains: 100 * (gains.dropna() > 0).mean(),
        gain="mean",
        planned="size",
    )
    cells = cells.reset_index()
    # A base without a reference has no cells at all.
    cells = cells[cells.groupby(["base", "suite"])["combinations"].transform("max") > 0]
    if cells["base"].nunique() > 1:
        means = cells.groupby(KEYS[1:], sort=False)
        # An average over fewer bases than there are would compare unlike things.
        full = means["gain"].count() == cells["base"].nunique()
        average = means[["combinations", "share", "gain", "planned"]].mean()[full].reset_index()
        cells = pd.concat([cells, average.assign(base=AVERAGE)], ignore_index=True)
    recipes = sorted(cells["recipe"].unique(), key=lambda recipe: (looks.rank(recipe), recipe))
    rank = {recipe: i for i, recipe in enumerate(recipes)}
    bases = {base: i for i, base in enumerate([*merges["base"].unique(), AVERAGE])}
    keys = {"base": bases, "recipe": rank}
    return cells.sort_values(
        ["suite", "base", "recipe", "n"], key=lambda c: c.map(keys.get(c.name, lambda v: v))
    ).reset_index(drop=True)


def beside_published(cells: pd.DataFrame, published: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Add published_share and published_gain where the paper has the base, recipe and n.

    The paper's numbers are about its own 16 tasks, so they stand beside suite `paper` alone.

    Args:
        cells: from `success`.
        published: tables of config/published.
    """
    printed = pd.concat(list(published))
    printed = printed.rename(columns={"share": "published_share", "gain": "published_gain"})
    keys = ["base", "recipe", "n"]
    columns = ["published_share", "published_gain"]
    cells = cells.merge(printed[[*keys, *columns]], "left", keys)
    cells.loc[cells["suite"] != "paper", columns] = np.nan
    # An average stands for the paper's four bases only when it is made of them.
    if set(printed["base"]) - {AVERAGE} != set(cells["base"]) - {AVERAGE}:
        cells.loc[cells["base"] == AVERAGE, columns] = np.nan
    return cells


def cell(share: float, gain: float) -> str:
    """A cell as the paper prints it, `80 / +0.39`; a missing one is a dash."""
    return MISSING if pd.isna(gain) else f"{share:.0f} / {signed(gain)}"


def counted(row: Any) -> str:
    """How many of the planned models a cell rests on, ` (9 of 15)`, where any is missing."""
    if not row.combinations < row.planned:
        return ""
    return f" ({row.combinations:.3g} of {row.planned:.3g})"


def published(row: Any) -> tuple[str, ...]:
    """The paper's own numbers of a cell, if it has any."""
    known = not pd.isna(row.published_gain)
    return (cell(row.published_share, row.published_gain) if known else "",)


def base_accuracies(merges: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(base, suite) -> the base's accuracy."""
    bases = merges[merges["subset"] == "base"]
    return bases.set_index(["base", "suite"])["accuracy"].to_dict()


def layout(
    cells: pd.DataFrame,
    reference: Mapping[tuple[str, str], float],
    looks: Looks,
    small: Small = published,
) -> Laid:
    """Lay cells out as the paper does: a block a base, a row a recipe, a column an n.

    Args:
        cells: from `success`, with whatever `small` reads.
        reference: (base, suite) -> the accuracy that is printed in its rows.
        looks: of the study.
        small: gives the texts that stand small below a cell.
    """
    sizes = sorted(cells["n"].unique())
    header = []
    for n in sizes:
        counts = cells.loc[(cells["n"] == n) & (cells["base"] != AVERAGE), "combinations"]
        low, high = int(counts.min()), int(counts.max())
        header.append(f"n = {n} ({low if low == high else f'{low}–{high}'})")
    suites = cells["suite"].nunique()
    rows = []
    for (suite, base), block in cells.groupby(["suite", "base"], sort=False):
        own = [v for (b, s), v in reference.items() if s == suite and base in (b, AVERAGE)]
        accuracy = f"{100 * np.mean(own):.1f}" if own and not np.isnan(own).any() else MISSING
        name = "Average" if base == AVERAGE else base_label(base)
        name = f"{name}, {suite}" if suites > 1 else name
        for recipe in looks.order(block["recipe"]):
            line = block[block["recipe"] == recipe].set_index("n").reindex(sizes)
            texts = [(cell(r.share, r.gain) + counted(r), *small(r)) for r in line.itertuples()]
            rows.append((name, looks.label(recipe), accuracy, texts))
    return header, rows


def to_html(laid: Laid, reference: str) -> str:
    """An HTML table of what `layout` gives; small texts stand under the cell's own."""
    header, rows = laid
    return render("paper_table", header=["Base", "Method", reference, *header], rows=rows)


def latex(text: str) -> str:
    """Escape a text for LaTeX; dashes become LaTeX's own and signs a real minus."""
    for plain, escaped in [("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("–", "--")]:
        text = text.replace(plain, escaped)
    return re.sub(r"(?<!\w)([+-])(?=\d)", r"$\1$", text)


def _grey(text: str) -> str:
    return rf"\textcolor{{gray}}{{{latex(text)}}}" if text else ""


def to_latex(laid: Laid, reference: str, small: Sequence[str] = ("published",)) -> str:
    """A LaTeX tabular (booktabs) of what `layout` gives.

    Small texts stand in grey rows of their own, named by `small`.
    """
    header, rows = laid
    lines = [
        r"% Needs booktabs and xcolor. Cells: share of models above / mean gain in points.",
        rf"\begin{{tabular}}{{llr{'c' * len(header)}}}",
        r"\toprule",
        " & ".join(["Base", "Method", latex(reference)]
                   + [latex(h).replace("n =", "$n$ =") for h in header]) + r" \\",
    ]  # fmt: skip
    last: str | None = None
    for base, method, accuracy, texts in rows:
        if base != last:
            lines.append(r"\midrule")
        ours = [latex(cell[0]) for cell in texts]
        first = latex(base) if base != last else ""
        lines.append(" & ".join([first, latex(method), latex(accuracy), *ours]) + r" \\")
        for i, label in enumerate(small, start=1):
            if not any(cell[i] for cell in texts):
                continue
            grey = [_grey(cell[i]) for cell in texts]
            lines.append(" & ".join(["", _grey(label), "", *grey]) + r" \\")
        last = base
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def write_table(made: Made, csv: str, tex: str, page: str) -> None:
    """Write a table's three forms to the paths `csv`, `tex` and `page`."""
    cells, *texts = made
    with atomic_file(csv) as part:
        cells.to_csv(part, index=False)
    for text, path in zip(texts, (tex, page), strict=True):
        with atomic_file(path) as part:
            part.write_text(text, encoding="utf-8")
