"""Draw a figure of a study, as the module of its name in wildmerge.reporting.figures does."""

from importlib import import_module

from wildmerge.reporting import read_inputs, save
from wildmerge.run import job

if __name__ == "__main__":
    with job(snakemake.log[0], "figure {study}/{figure}".format(**snakemake.wildcards)):
        figure = import_module(f"wildmerge.reporting.figures.{snakemake.wildcards.figure}")
        params = snakemake.params
        inputs = read_inputs(
            {name: [*paths] for name, paths in snakemake.input.items()},
            params.study,
            params.checkpoints,
            params.recipes,
        )
        save(figure.draw(inputs), snakemake.output.pdf, snakemake.output.png)
