"""Bring a suite's questions: its entry in suites.yaml -> data, lm-eval task files, suite.json."""

from wildmerge.evaluation.suites import fetch
from wildmerge.run.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"fetch_suite {snakemake.wildcards.suite}"):
        fetch(snakemake.wildcards.suite, snakemake.params.suite, snakemake.output[0])
