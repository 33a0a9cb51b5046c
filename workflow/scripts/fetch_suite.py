"""Bring a suite's questions: config/suites.yaml -> data, lm-eval task files, suite.json."""

from wildmerge.suites import fetch

if __name__ == "__main__":
    fetch(snakemake.wildcards.suite, snakemake.params.spec, snakemake.output[0])
