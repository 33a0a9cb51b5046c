"""Tables 1 and 3: share of merges above the base and mean gain in points, by method and n."""

from .. import layout
from ..inputs import Inputs

INPUTS = ("merges", "published/table1", "published/table3")
CAPTION = """
Percentage of models above their base / mean gain over it in percentage points, by method and number
n of merged checkpoints, with the number of models in brackets (Tables 1 and 3). Column n = 1 holds
the single checkpoints. Where the paper has the same base and suite, its published numbers stand
small below.
"""


def make(inputs: Inputs) -> layout.Made:
    """The tidy cells, the LaTeX and the HTML."""
    cells = layout.success(inputs.merges, "gain", inputs.looks)
    cells = layout.beside_published(cells, inputs.published.values())
    laid = layout.layout(cells, layout.base_accuracies(inputs.merges), inputs.looks)
    return cells, layout.to_latex(laid, "Base, %"), layout.to_html(laid, "Base, %")
