"""Compare all models of a study with their base and the best checkpoint, question by question."""

from wildmerge.analysis import compare_study
from wildmerge.files import atomic_file
from wildmerge.run import job

SEED = 0  # of the resampling of questions and draws

if __name__ == "__main__":
    with job(snakemake.log[0], f"compare {snakemake.wildcards.study}"):
        output = snakemake.output
        paths = output.comparisons, output.intervals, output.answers
        for frame, path in zip(compare_study(snakemake.params.plan, SEED), paths, strict=True):
            with atomic_file(path) as part:
                frame.to_csv(part, index=False)
