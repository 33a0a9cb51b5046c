"""What a study lacks, in its report: what is missing, why, and how much is left to compare."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from .looks import base_label
from .markup import listed, table, text


def lead(merges: pd.DataFrame) -> str:
    """A sentence on what is missing, for the top of the page; "" where nothing is.

    Args:
        merges: merges.csv.
    """
    gone = merges[merges["left_out"] != ""]
    if gone.empty:
        return ""
    merged = merges[merges["recipe"] != "identity"]
    counted = (merged["left_out"] == "").sum()
    return (
        f" <b>{counted} of {len(merged)} planned merges count</b>; what is missing, and why, "
        "stands under <a href='#missing'>Missing</a>."
    )


def missing(study: Mapping[str, Any], merges: pd.DataFrame) -> str:
    """What a study was drawn or goes on without, and how many of its merges are left.

    Args:
        study: its YAML.
        merges: merges.csv.

    Returns:
        HTML; "" where nothing is missing and nothing was left out.
    """
    told = ""
    if study.get("without"):
        names = [f"<code>{text(name)}</code>" for name in study["without"]]
        told += f"<p>The subsets were drawn without {listed(names)}, as the study says.</p>"
    if (merges["left_out"] == "").all():
        return told
    if reasons := study.get("missing", {}):
        lines = [
            [f"<code>{text(name)}</code>", _holding(name, merges), text(why)]
            for name, why in reasons.items()
        ]
        told += "<p>The study goes on without these:</p>"
        told += table(["Missing", "planned merges that hold it", "why"], lines, (2,), 1)
    told += (
        "<p>Methods are compared on the same subsets. A subset counts where every method has its "
        "merge of it, of all methods that have any of that base on that suite; in no table, figure "
        "or test is any other. merges.csv says of each merge why it is left out.</p>"
    )
    return told + _counts(merges)


def _holding(name: str, merges: pd.DataFrame) -> int:
    """How many planned merges a missing checkpoint, or merge, is."""
    base, *rest = name.split("/")
    once = merges[merges["base"] == base].drop_duplicates(["subset", "recipe"])
    once = once[once["recipe"] != "identity"]
    if len(rest) == 2:
        return int(((once["subset"] == rest[0]) & (once["recipe"] == rest[1])).sum())
    return sum(rest[0] in members.split(";") for members in once["members"])


def _counts(merges: pd.DataFrame) -> str:
    """A table of the subsets that count, of those planned: a row a base and suite, a column an n.

    n = 1 holds the single checkpoints.
    """
    rows = merges[merges["n"] > 0].assign(counts=lambda frame: frame["left_out"] == "")
    # Of a method that has no merge at all nothing counts; the subsets are those of the others.
    keys = ["base", "suite", "n", "subset"]
    subsets = rows.groupby(keys, sort=False)["counts"].any().reset_index()
    sizes = sorted(subsets["n"].unique())
    lines = []
    for (base, suite), own in subsets.groupby(["base", "suite"], sort=False):
        cells = [own.loc[own["n"] == n, "counts"] for n in sizes]
        told = [f"{cell.sum()} of {len(cell)}" if len(cell) else "–" for cell in cells]
        lines.append([text(base_label(base)), text(suite), *told])
    header = ["Base", "suite", *("checkpoints" if n == 1 else f"n = {n}" for n in sizes)]
    return "<p>Subsets that count, of those planned:</p>" + table(header, lines, names=2)
