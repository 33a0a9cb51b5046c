"""What a study lacks, in its report: what is missing, why, and how much is left to compare."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from .looks import base_label
from .templates import Table, render


def missing(study: Mapping[str, Any], merges: pd.DataFrame) -> Markup | str:
    """What a study was drawn or goes on without, and how many of its subsets count.

    Args:
        study: its YAML.
        merges: merges.csv.

    Returns:
        HTML; "" where nothing is missing and nothing was left out.
    """
    reasons, without = study.get("missing", {}), study.get("without", [])
    gaps = (merges["left_out"] != "").any()
    if not (reasons or without or gaps):
        return ""
    gone = [[_code(name), _held_by(name, merges), why] for name, why in reasons.items()]
    return render(
        "missing",
        without=[_code(name) for name in without],
        gone=Table(["Missing", "planned merges that hold it", "why"], gone, wide=(2,)),
        gaps=gaps,
        counts=_counts(merges),
    )


def _code(name: str) -> Markup:
    return Markup("<code>{}</code>").format(name)


def _held_by(name: str, merges: pd.DataFrame) -> int:
    """How many planned merges hold a missing checkpoint, or are the missing merge."""
    base, *rest = name.split("/")
    once = merges[merges["base"] == base].drop_duplicates(["subset", "recipe"])
    once = once[once["recipe"] != "identity"]
    if len(rest) == 2:
        return int(((once["subset"] == rest[0]) & (once["recipe"] == rest[1])).sum())
    return sum(rest[0] in members.split(";") for members in once["members"])


def _counts(merges: pd.DataFrame) -> Table:
    """The subsets that count, of those planned: a row a base and suite, a column an n."""
    rows = merges[merges["n"] > 0].assign(counts=merges["left_out"] == "")
    # Of a method that has no merge at all nothing counts; the subsets are those of the others.
    keys = ["base", "suite", "n", "subset"]
    subsets = rows.groupby(keys, sort=False)["counts"].any().reset_index()
    sizes = sorted(subsets["n"].unique())
    lines = []
    for (base, suite), own in subsets.groupby(["base", "suite"], sort=False):
        cells = [own.loc[own["n"] == n, "counts"] for n in sizes]
        numbers = [f"{cell.sum()} of {len(cell)}" if len(cell) else None for cell in cells]
        lines.append([base_label(base), suite, *numbers])
    header = ["Base", "suite", *("checkpoints" if n == 1 else f"n = {n}" for n in sizes)]
    return Table(header, lines, names=2)
