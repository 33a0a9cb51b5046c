"""Measure one checkpoint's task vector and judge whether it can be merged with its base."""

from wildmerge.deltas import measure
from wildmerge.files import write_json
from wildmerge.jobs import job

if __name__ == "__main__":
    what = "task_vector {base}/{model}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what, snakemake.threads):
        write_json(
            snakemake.output.verdict,
            measure(snakemake.input.base, snakemake.input.expert, snakemake.params.row),
        )
