"""Compute a subset's update without its scale, for the points of a sweep over lambda."""

from wildmerge.merging import digests, write_update
from wildmerge.run import job

if __name__ == "__main__":
    members, recipe = snakemake.params.members, snakemake.params.recipe
    what = "update {base}/{subset}/{unscaled}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what, snakemake.threads):
        found = digests(members, snakemake.input.verdicts)
        experts = dict(zip(members, snakemake.input.experts, strict=True))
        write_update(snakemake.input.base, experts, recipe, snakemake.output[0], found)
