"""Render and tokenise a suite's prompts once for all models that share a base's tokenizer."""

from wildmerge.evaluation import offline, tokenize
from wildmerge.run import job

if __name__ == "__main__":
    what = f"tokenize {snakemake.wildcards.base}/{snakemake.wildcards.suite}"
    with job(snakemake.log[0], what, snakemake.threads):
        offline()
        tokenize(snakemake.input.tokenizer, snakemake.input.suite, snakemake.output[0])
