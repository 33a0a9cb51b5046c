"""Gather the scores and merge summaries of a study into scores.csv and merges.csv."""

from wildmerge.analysis import scores
from wildmerge.files import atomic_file
from wildmerge.run import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"aggregate {snakemake.wildcards.study}"):
        paths = snakemake.output.scores, snakemake.output.merges
        for frame, path in zip(scores.read(snakemake.params.plan), paths, strict=True):
            with atomic_file(path) as part:
                frame.to_csv(part, index=False)
