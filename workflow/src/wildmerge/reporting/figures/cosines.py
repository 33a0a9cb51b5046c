"""Figures 19-22: pairwise cosines between the task vectors of the checkpoints of a base."""

import numpy as np

from wildmerge.reporting import looks as style
from wildmerge.run.jobs import job


def cosines(gram):
    """gram: (..., k, k) products of task vectors. Returns their cosines; 0 where one is zero."""
    norm = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    product = norm[..., :, None] * norm[..., None, :]
    return np.divide(gram, product, out=np.zeros_like(gram), where=product > 0)


def select(similarity, checkpoints):
    """The Gram matrices (tensors, k, k) of a study's own checkpoints, in its order."""
    places = [list(similarity["models"]).index(name) for name in checkpoints]
    return similarity["gram"][:, places][:, :, places]


def cell(value):
    """A cosine in a narrow cell: `-.02`; nothing on the diagonal."""
    return "" if np.isnan(value) else f"{value:.2f}".replace("0.", ".").replace("-.00", ".00")


def draw(similarities, checkpoints):
    """similarities: base -> similarity.npz; checkpoints: base -> names in the sheet's order.
    Returns the figure: a panel a base, the whole task vectors' cosines.
    """
    figure, axes = style.grid(*style.near_square(len(checkpoints)), width=4.6, height=4.1)
    for ax in axes.flat[len(checkpoints) :]:
        ax.axis("off")
    for ax, (base, names) in zip(axes.flat, checkpoints.items(), strict=False):
        values = cosines(select(similarities[base], names).sum(0))
        np.fill_diagonal(values, np.nan)
        size = 0 if len(names) < 2 else np.nanmax(np.abs(values))
        limit = max(0.05, size)
        labels = [[cell(value) for value in line] for line in values]
        numbers = [str(i + 1) for i in range(len(names))]
        rows = [f"{name}  {i}" for i, name in zip(numbers, names, strict=True)]
        image = style.heatmap(ax, values, labels, rows, numbers, limit)
        ax.set_xticks(range(len(numbers)), numbers, rotation=0, ha="center")
        ax.set_title(style.base_label(base))
        figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02, label="cosine")
    return figure


if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        checkpoints = snakemake.params.checkpoints
        pairs = zip(checkpoints, snakemake.input.similarity, strict=True)
        figure = draw({base: np.load(path) for base, path in pairs}, checkpoints)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
