"""Make a table of a study, as the module of its name in wildmerge.reporting.tables does."""

from importlib import import_module

from wildmerge.reporting import read_inputs, write_table
from wildmerge.run import job

if __name__ == "__main__":
    with job(snakemake.log[0], "table {study}/{table}".format(**snakemake.wildcards)):
        table = import_module(f"wildmerge.reporting.tables.{snakemake.wildcards.table}")
        params, output = snakemake.params, snakemake.output
        inputs = read_inputs(
            {name: [*paths] for name, paths in snakemake.input.items()},
            params.study,
            params.checkpoints,
            params.recipes,
        )
        write_table(table.make(inputs), output.csv, output.tex, output.html)
