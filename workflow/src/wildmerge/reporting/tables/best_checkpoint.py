"""Table 2: share of merges above the best single checkpoint and mean gain over it, by n.

The best checkpoint is chosen on the questions it is compared on, as in the paper, which favours
it; answers.csv has the gain over it with an interval that takes that into account.
"""

from .. import layout
from ..inputs import Inputs

INPUTS = ("merges", "published/table2")
CAPTION = """
Percentage of models above the best single checkpoint / mean gain over it in percentage points
(Table 2). The best checkpoint is chosen on the questions it is compared on, as in the paper, which
favours it: the maximum of several noisy scores lies above the truth. Intervals and tests that take
that into account stand in answers.csv and in the report.
"""


def make(inputs: Inputs) -> layout.Made:
    """The tidy cells, the LaTeX and the HTML."""
    merges = inputs.merges
    cells = layout.success(merges, "gain_over_best", inputs.looks)
    cells = layout.beside_published(cells, inputs.published.values())
    best = merges.dropna(subset="best_accuracy").groupby(["base", "suite"])["best_accuracy"].first()
    laid = layout.layout(cells, best.to_dict(), inputs.looks)
    return cells, layout.to_latex(laid, "Best, %"), layout.to_html(laid, "Best, %")
