"""Compare all models of a study with their base and the best checkpoint, question by question."""

from wildmerge.analysis import compare
from wildmerge.files import atomic_file
from wildmerge.run.jobs import job

SEED = 0  # of the resampling of questions and draws


def main(plan, paths):
    for frame, path in zip(compare.study(plan, SEED), paths, strict=True):
        with atomic_file(path) as part:
            frame.to_csv(part, index=False)


if __name__ == "__main__":
    with job(snakemake.log[0], f"compare {snakemake.wildcards.study}"):
        output = snakemake.output
        main(snakemake.params.plan, (output.comparisons, output.intervals, output.answers))
