"""Measure one checkpoint's task vector and judge whether it can be merged with its base."""

from wildmerge.deltas import measure
from wildmerge.files import write_json

if __name__ == "__main__":
    write_json(
        snakemake.output.verdict,
        measure(snakemake.input.base, snakemake.input.expert, snakemake.params.row),
    )
