"""Factorise a checkpoint's task vectors (TSV-M), or their sum over a subset (Iso-C, TA + SB)."""

from wildmerge.merging import digests, factorize_expert, factorize_sum
from wildmerge.run import job

if __name__ == "__main__":
    members, experts = snakemake.params.members, snakemake.input.experts
    what, gpus = "factorize " + ", ".join(members), snakemake.resources.get("gpu", 0)
    with job(snakemake.log[0], what, snakemake.threads, gpus):
        found = digests(members, snakemake.input.verdicts)
        if snakemake.params.of == "sum":
            factorize_sum(snakemake.input.base, experts, snakemake.output[0], found)
        else:
            factorize_expert(snakemake.input.base, experts[0], snakemake.output[0], found)
