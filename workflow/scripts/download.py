"""Fetch one checkpoint of models.tsv and make it an ordinary one of its base's shapes."""

from wildmerge.checkpoints import fetch
from wildmerge.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], "download {base}/{model}".format(**snakemake.wildcards), 1):
        fetch(
            snakemake.params.repo,
            snakemake.params.revision,
            snakemake.output[0],
            base=snakemake.input.get("base") or None,
            pickles=snakemake.params.get("pickles", False),
            files=snakemake.params.get("files"),
        )
