"""Bring a suite's questions: its entry in suites.yaml -> data, lm-eval task files, suite.json."""

from wildmerge.evaluation import fetch_suite
from wildmerge.run import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"fetch_suite {snakemake.wildcards.suite}"):
        params = snakemake.params
        fetch_suite(snakemake.wildcards.suite, params.suite, snakemake.output[0], params.pins)
