"""Gather the scores and merge summaries of a study into scores.csv and merges.csv."""

from wildmerge.analysis import scores
from wildmerge.files import atomic_file
from wildmerge.run.jobs import job


def main(plan, scores_path, merges_path):
    for frame, path in zip(scores.read(plan), (scores_path, merges_path), strict=True):
        with atomic_file(path) as part:
            frame.to_csv(part, index=False)


if __name__ == "__main__":
    with job(snakemake.log[0], f"aggregate {snakemake.wildcards.study}"):
        main(snakemake.params.plan, snakemake.output.scores, snakemake.output.merges)
