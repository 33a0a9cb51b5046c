"""Compare all models of a study with their base by the probabilities of the right answers."""

from wildmerge.analysis import calibrate_study
from wildmerge.files import atomic_file
from wildmerge.run import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"calibrate {snakemake.wildcards.study}"):
        frame = calibrate_study(snakemake.params.plan)
        with atomic_file(snakemake.output[0]) as part:
            frame.to_csv(part, index=False)
