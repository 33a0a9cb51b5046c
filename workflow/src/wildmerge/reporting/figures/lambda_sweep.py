"""Figures 11 and 12: Task Arithmetic by lambda, with normalisation (mean) and without (sum)."""

from wildmerge.analysis.scores import read_table, sweep
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job

LOOKS = {"mean": ("mean of the task vectors", "o", "-"), "sum": ("sum, not normalised", "^", "--")}


def draw(merges, comparisons, recipes):
    """merges, comparisons: the study's tables; recipes: name -> {parameters}. Returns the figure:
    a panel a base, a line a way to combine; bars are 95 % intervals over questions of the
    difference to the base.
    """
    points = sweep(merges, comparisons, recipes, "task_arithmetic")
    panels = style.panels(merges)
    figure, axes = style.grid(1, len(panels), width=3.4 if len(panels) == 1 else 2.7)
    for ax, (title, rows) in zip(axes[0], panels, strict=True):
        style.base_line(ax, rows, "accuracy")
        own = style.of(points, rows)
        for combine, (label, marker, dash) in LOOKS.items():
            line = own[own["combine"] == combine]
            style.interval_line(ax, line, "lambda", label=label, marker=marker, ls=dash,
                                color=style.METHODS["task_arithmetic"].colour)  # fmt: skip
        ax.set_xscale("log")
        ax.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        ax.minorticks_off()
        ax.set_title(title)
        ax.set_xlabel("lambda")
    axes[0, 0].set_ylabel("mean accuracy, %")
    style.legend_below(figure, axes.flat)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        tables = read_table(snakemake.input.merges), read_table(snakemake.input.comparisons)
        figure = draw(*tables, snakemake.params.recipes)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
