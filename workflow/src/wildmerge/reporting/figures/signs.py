"""Figures 23-26: in how many weight tensors two task vectors point the same or opposite ways."""

import numpy as np

from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def counts(gram):
    """gram: (tensors, k, k). Returns the numbers of tensors with a positive and a negative cosine,
    (k, k) each; a tensor that one of two checkpoints left alone counts in neither.
    """
    return (gram > 0).sum(0), (gram < 0).sum(0)


def draw(similarities, checkpoints):
    """similarities: base -> similarity.npz; checkpoints: base -> names in the sheet's order.
    Returns the figure: a panel a base, `positive/negative` in each cell, coloured by their
    balance.
    """
    figure, axes = style.grid(*style.near_square(len(checkpoints)), width=5.4, height=4.4)
    for ax in axes.flat[len(checkpoints) :]:
        ax.axis("off")
    for ax, (base, names) in zip(axes.flat, checkpoints.items(), strict=False):
        found = similarities[base]
        places = [list(found["models"]).index(name) for name in names]
        gram = found["gram"][:, places][:, :, places]
        positive, negative = counts(gram)
        balance = 100 * (positive - negative) / len(gram)
        np.fill_diagonal(balance, np.nan)
        labels = [
            [f"{positive[i, j]}\n{negative[i, j]}" if i != j else "" for j in range(len(names))]
            for i in range(len(names))
        ]
        numbers = [str(i + 1) for i in range(len(names))]
        rows = [f"{name}  {i}" for i, name in zip(numbers, names, strict=True)]
        image = style.heatmap(ax, balance, labels, rows, numbers, 100)
        ax.set_xticks(range(len(numbers)), numbers, rotation=0, ha="center")
        ax.set_title(f"{style.base_label(base)}, {len(gram)} tensors")
        label = "positive minus negative, % of tensors"
        figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02, label=label)
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        checkpoints = snakemake.params.checkpoints
        pairs = zip(checkpoints, snakemake.input.similarity, strict=True)
        figure = draw({base: np.load(path) for base, path in pairs}, checkpoints)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
