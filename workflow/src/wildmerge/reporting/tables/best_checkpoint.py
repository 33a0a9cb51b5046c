"""Table 2: share of merges above the best single checkpoint and mean gain over it, by n.

The best checkpoint is chosen on the questions it is compared on, as in the paper, which favours
it; the report shows the gain over one that is chosen on the other half of the questions.
"""

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import layout as tables
from wildmerge.run.jobs import job


def make(merges, published):
    """merges: rows of merges.csv; published: paths of the paper's Table 2.
    Returns the tidy cells, the LaTeX and the HTML.
    """
    cells = tables.beside_published(tables.success(merges, "gain_over_best"), published)
    best = merges.dropna(subset="best_accuracy").groupby(["base", "suite"])["best_accuracy"].first()
    laid = tables.layout(cells, best.to_dict())
    return cells, tables.to_latex(*laid, "Best, %"), tables.to_html(*laid, "Best, %")


if __name__ == "__main__":
    with job(snakemake.log[0], "table {study}/{table}".format(**snakemake.wildcards)):
        made = make(read_table(snakemake.input.merges), [snakemake.input.table2])
        tables.write(*made, snakemake.output)
