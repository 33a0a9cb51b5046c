"""How sure Tables 1 and 3 are: intervals of every mean gain, shares significantly off the base."""

from typing import Any

import pandas as pd

from .. import layout
from ..inputs import Inputs
from ..numbers import interval

INPUTS = ("merges", "intervals")
CAPTION = """
Percentage of models above their base / mean gain over it in percentage points, and below: the 95 %
interval of the mean gain over questions, the one over draws (none where one draw was made or all
subsets were), and the percentages of models significantly above / below the base (paired test,
false discovery rate 5 % over all merges of the study). Column n = 1 holds the single checkpoints.
"""
ROWS = ("over questions", "over draws", "significant, %")
_COLUMNS = ["questions_low", "questions_high", "draws_low", "draws_high"]


def make(inputs: Inputs) -> layout.Made:
    """The tidy cells, the LaTeX and the HTML."""
    keys = layout.KEYS
    cells = layout.success(inputs.merges, "gain", inputs.looks)
    found = inputs.intervals[inputs.intervals["reference"] == "base"]
    found = found[[*keys, *_COLUMNS, "share_above", "share_below"]]
    single = found[found["recipe"] == "identity"].drop(columns="recipe")
    merged = cells[cells["n"] > 1].merge(found, "left", keys)
    alone = cells[cells["n"] == 1].merge(single, "left", ["base", "suite", "n"])
    cells = cells[keys].merge(pd.concat([alone, merged]), "left", keys)
    laid = layout.layout(cells, layout.base_accuracies(inputs.merges), inputs.looks, _small)
    return cells, layout.to_latex(laid, "Base, %", ROWS), layout.to_html(laid, "Base, %")


def _small(row: Any) -> tuple[str, ...]:
    """The interval over questions, over draws, and the shares significantly above and below."""
    if not row.share_above >= 0:  # NaN: an average, or a cell without tests
        return "", "", ""
    return (
        interval(row.questions_low, row.questions_high),
        interval(row.draws_low, row.draws_high),
        f"{row.share_above:.0f} / {row.share_below:.0f}",
    )
