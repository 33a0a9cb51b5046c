"""Figures 27 and 28: merges of experts of one domain against merges of all of them."""

import numpy as np

from wildmerge.analysis.scores import MODEL, read_table
from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job

LOOKS = [("o", "#009E73"), ("s", "#0072B2"), ("^", "#D55E00"), ("D", "#CC79A7")]


def draw(merges, comparisons, study):
    """merges, comparisons: the study's tables; study: its YAML, for its groups. Returns the figure:
    a row a base, a column a suite; bars are 95 % intervals over questions of the difference to the
    base.
    """
    against_base = comparisons[comparisons["reference"] == "base"]
    merges = merges.merge(against_base[[*MODEL, "low", "high"]], "left", MODEL)
    suites = [suite for suite in study["suites"] if suite in set(merges["suite"])]
    bases = merges["base"].unique()
    figure, axes = style.grid(len(bases), len(suites), width=3.7, height=2.4)
    for row, base in enumerate(bases):
        for column, suite in enumerate(suites):
            ax = axes[row, column]
            rows = merges[(merges["base"] == base) & (merges["suite"] == suite)]
            panel(ax, rows, list(study["groups"]))
            ax.set_title(f"{style.base_label(base)}, {suite} tasks")
        axes[row, 0].set_ylabel("mean accuracy, %")
    style.legend_below(figure, axes.flat)
    return figure


def panel(ax, rows, groups):
    """One base on one suite: the base as a line, the single checkpoints' range, a mark a group."""
    style.base_line(ax, rows, "accuracy")
    single = 100 * rows.loc[(rows["n"] == 1), "accuracy"].dropna()
    if len(single):
        ax.axhspan(single.min(), single.max(), color="#EEEEEE", zorder=0, lw=0,
                   label="range of single checkpoints")  # fmt: skip
    recipes = style.order(rows["recipe"])
    present = [group for group in groups if (rows["subset"] == group).any()]
    for i, group in enumerate(present):
        own = rows[rows["subset"] == group].set_index("recipe").reindex(recipes)
        x = np.arange(len(recipes)) + 0.22 * (i - (len(present) - 1) / 2)
        accuracy = 100 * own["accuracy"]
        n = int(own["n"].dropna().iloc[0])
        marker, colour = LOOKS[groups.index(group) % len(LOOKS)]
        ax.plot(x, accuracy, ls="", marker=marker,
                color=colour, label=f"{group} experts merged (n = {n})")  # fmt: skip
        low, high = accuracy - own["gain"] + own["low"], accuracy - own["gain"] + own["high"]
        ax.vlines(x, low, high, color=colour, lw=1)
    ax.set_xticks(range(len(recipes)), [style.method(r).label for r in recipes], rotation=30,
                  ha="right", rotation_mode="anchor")  # fmt: skip
    ax.grid(False, axis="x")


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        tables = read_table(snakemake.input.merges), read_table(snakemake.input.comparisons)
        figure = draw(*tables, snakemake.params.study)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
