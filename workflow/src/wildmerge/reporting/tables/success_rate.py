"""Tables 1 and 3: share of merges above the base and mean gain in points, by method and n."""

from wildmerge.analysis.scores import read_table
from wildmerge.reporting import layout as tables
from wildmerge.run.jobs import job


def make(merges, published):
    """merges: rows of merges.csv; published: paths of the paper's Tables 1 and 3.
    Returns the tidy cells, the LaTeX and the HTML.
    """
    cells = tables.beside_published(tables.success(merges, "gain"), published)
    base = merges[merges["subset"] == "base"].set_index(["base", "suite"])["accuracy"].to_dict()
    laid = tables.layout(cells, base)
    return cells, tables.to_latex(*laid, "Base, %"), tables.to_html(*laid, "Base, %")


if __name__ == "__main__":
    with job(snakemake.log[0], "table {study}/{table}".format(**snakemake.wildcards)):
        published = [snakemake.input.table1, snakemake.input.table3]
        tables.write(*make(read_table(snakemake.input.merges), published), snakemake.output)
