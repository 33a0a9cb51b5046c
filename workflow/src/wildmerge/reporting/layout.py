"""Tables 1-3 of the paper: share of merges above a reference and mean gain, by method and n."""

import html
import re

import numpy as np
import pandas as pd

from wildmerge.files import atomic_file
from wildmerge.reporting import looks as style

KEYS = ["base", "suite", "recipe", "n"]
AVERAGE = "average"


def success(merges: pd.DataFrame, gain: str) -> pd.DataFrame:
    """Share of models above a reference and their mean gain, for each base, suite, recipe and n.

    merges: rows of merges.csv; gain: the column to judge by, `gain` (Tables 1, 3) or
        `gain_over_best` (Table 2), percentage points.
    Returns columns base, suite, recipe, n, combinations (models with a score), share (percent of
    them above zero), gain (points); n = 1 holds the single checkpoints for every recipe, and the
    rows of base `average` are plain means over bases, as in the paper. Cells without any score
    are absent.
    """
    merges = merges.dropna(subset=gain)
    single = merges[(merges["n"] == 1) & (merges["recipe"] == "identity")]
    merged = merges[merges["recipe"] != "identity"]
    recipes = merged["recipe"].unique()
    rows = pd.concat([merged, *(single.assign(recipe=recipe) for recipe in recipes)])
    cells = rows.groupby(KEYS, sort=False)[gain].agg(
        combinations="size", share=lambda gains: 100 * (gains > 0).mean(), gain="mean"
    )
    cells = cells.reset_index()
    if cells["base"].nunique() > 1:
        means = cells.groupby(KEYS[1:], sort=False)
        # An average over fewer bases than there are would compare unlike things.
        full = means["base"].nunique() == cells["base"].nunique()
        average = means[["combinations", "share", "gain"]].mean()[full].reset_index()
        cells = pd.concat([cells, average.assign(base=AVERAGE)], ignore_index=True)
    rank = {recipe: i for i, recipe in enumerate(style.order(cells["recipe"]))}
    bases = {base: i for i, base in enumerate([*merges["base"].unique(), AVERAGE])}
    keys = {"base": bases, "recipe": rank}
    return cells.sort_values(
        ["suite", "base", "recipe", "n"], key=lambda c: c.map(keys.get(c.name, lambda v: v))
    ).reset_index(drop=True)


def beside_published(cells: pd.DataFrame, published: list) -> pd.DataFrame:
    """Add published_share and published_gain where the paper has the base, recipe and n.

    The paper's numbers are about its own 16 tasks, so they stand beside suite `paper` alone.

    published: paths of files of config/published.
    """
    printed = pd.concat([pd.read_csv(path) for path in published])
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
    return "–" if pd.isna(gain) else f"{share:.0f} / {style.signed(gain)}"


def published(row) -> tuple[str]:
    """The paper's own numbers of a cell, if it has any."""
    known = not pd.isna(row.published_gain)
    return (cell(row.published_share, row.published_gain) if known else "",)


def layout(cells: pd.DataFrame, reference: dict, small=published) -> tuple[list, list]:
    """Lay cells out as the paper does: a block a base, a row a recipe, a column an n.

    cells: from `success`, with whatever `small` reads; reference: (base, suite) -> accuracy that is
        printed in its rows; small: a cell's row -> the texts that stand small below it.
    Returns the header texts and the rows (base, recipe, accuracy, [(text, *small texts)]).
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
        accuracy = f"{100 * np.mean(own):.1f}" if own and not np.isnan(own).any() else "–"
        name = "Average" if base == AVERAGE else style.base_label(base)
        name = f"{name}, {suite}" if suites > 1 else name
        for recipe, line in block.groupby("recipe", sort=False):
            line = line.set_index("n").reindex(sizes)
            texts = [(cell(r.share, r.gain), *small(r)) for r in line.itertuples()]
            rows.append((name, style.method(recipe).label, accuracy, texts))
    return header, rows


def to_html(header, rows, reference: str) -> str:
    """An HTML table of what `layout` gives; small texts stand under the cell's own."""
    heads = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    lines = [
        "<table>",
        "<thead><tr><th>Base</th><th class=text>Method</th>"
        f"<th>{html.escape(reference)}</th>{heads}</tr></thead>",
        "<tbody>",
    ]
    last = None
    for base, method, accuracy, texts in rows:
        tds = "".join(
            f"<td>{own}{''.join(f'<br><small>{text}</small>' for text in small if text)}</td>"
            for own, *small in texts
        )
        mark = ' class="block"' if base != last else ""
        first = html.escape(base) if base != last else ""
        lines.append(
            f"<tr{mark}><th>{first}</th><th>{html.escape(method)}</th><td>{accuracy}</td>{tds}</tr>"
        )
        last = base
    return "\n".join([*lines, "</tbody>", "</table>", ""])


def latex(text: str) -> str:
    """Escape a text for LaTeX; dashes become LaTeX's own and signs a real minus."""
    for plain, escaped in [("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("–", "--")]:
        text = text.replace(plain, escaped)
    return re.sub(r"(?<!\w)([+-])(?=\d)", r"$\1$", text)


def _grey(text: str) -> str:
    return rf"\textcolor{{gray}}{{{latex(text)}}}" if text else ""


def to_latex(header, rows, reference: str, small=("published",)) -> str:
    """A LaTeX tabular (booktabs) of what `layout` gives; small texts stand in grey rows of their
    own, named by `small`.
    """
    lines = [
        r"% Needs booktabs and xcolor. Cells: share of models above / mean gain in points.",
        rf"\begin{{tabular}}{{llr{'c' * len(header)}}}",
        r"\toprule",
        " & ".join(["Base", "Method", latex(reference)]
                   + [latex(h).replace("n =", "$n$ =") for h in header]) + r" \\",
    ]  # fmt: skip
    last = None
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


def write(cells, tex, page, output) -> None:
    """Write a table's three forms to output.csv, output.tex and output.html."""
    with atomic_file(output.csv) as part:
        cells.to_csv(part, index=False)
    for text, path in ((tex, output.tex), (page, output.html)):
        with atomic_file(path) as part:
            part.write_text(text, encoding="utf-8")
