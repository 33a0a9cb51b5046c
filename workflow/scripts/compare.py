"""Compare all models of a study with their base, the best checkpoints and each other."""

from wildmerge.analysis import FRAMES, Facts, compare_study, gather, write_outcomes
from wildmerge.files import atomic_file
from wildmerge.run import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"compare {snakemake.wildcards.study}"):
        study = gather(snakemake.params.plan, Facts(**snakemake.params.facts))
        write_outcomes(study, snakemake.output.outcomes)
        frames = compare_study(study)
        for name in FRAMES:
            with atomic_file(snakemake.output[name]) as part:
                frames[name].to_csv(part, index=False)
