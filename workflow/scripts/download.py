"""Fetch one checkpoint of models.tsv and make it an ordinary one of its base's shapes."""

from contextlib import redirect_stderr, redirect_stdout

from wildmerge.checkpoints import fetch

if __name__ == "__main__":
    with open(snakemake.log[0], "w") as log, redirect_stdout(log), redirect_stderr(log):
        fetch(
            snakemake.params.repo,
            snakemake.params.revision,
            snakemake.output[0],
            base=snakemake.input.get("base"),
            admit=snakemake.params.get("admit", ""),
            files=snakemake.params.get("files"),
        )
