"""How sure Tables 1 and 3 are: intervals of every mean gain, shares significantly off the base."""

import pandas as pd

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import layout as tables
from wildmerge.reporting.looks import interval
from wildmerge.run.jobs import job

ROWS = ("over questions", "over draws", "significant, %")
COLUMNS = ["questions_low", "questions_high", "draws_low", "draws_high"]
KEYS = ["base", "suite", "recipe", "n"]


def small(row):
    """The interval over questions, over draws, and the shares significantly above and below."""
    if not row.share_above >= 0:  # NaN: an average, or a cell without tests
        return "", "", ""
    return (
        interval(row.questions_low, row.questions_high),
        interval(row.draws_low, row.draws_high),
        f"{row.share_above:.0f} / {row.share_below:.0f}",
    )


def make(merges, intervals):
    """merges, intervals: the study's tables.
    Returns the tidy cells, the LaTeX and the HTML.
    """
    cells = tables.success(merges, "gain")
    found = intervals[intervals["reference"] == "base"]
    found = found[[*KEYS, *COLUMNS, "share_above", "share_below"]]
    single = found[found["recipe"] == "identity"].drop(columns="recipe")
    merged = cells[cells["n"] > 1].merge(found, "left", KEYS)
    alone = cells[cells["n"] == 1].merge(single, "left", ["base", "suite", "n"])
    order = cells[KEYS]
    cells = order.merge(pd.concat([alone, merged]), "left", KEYS)
    base = merges[merges["subset"] == "base"].set_index(["base", "suite"])["accuracy"].to_dict()
    laid = tables.layout(cells, base, small)
    return cells, tables.to_latex(*laid, "Base, %", ROWS), tables.to_html(*laid, "Base, %")


if __name__ == "__main__":
    with job(snakemake.log[0], "table {study}/{table}".format(**snakemake.wildcards)):
        tidy = read_table(snakemake.input.merges), read_table(snakemake.input.intervals)
        tables.write(*make(*tidy), snakemake.output)
