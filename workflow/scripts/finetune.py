"""Fine-tune a base on one kind of text: a checkpoint of the examples."""

from pathlib import Path

from wildmerge.checkpoints import make_expert
from wildmerge.files import atomic_folder
from wildmerge.run import job

if __name__ == "__main__":
    what = f"finetune {snakemake.wildcards.trained}"
    with (
        job(snakemake.log[0], what, snakemake.threads, snakemake.resources.get("gpu", 0)),
        atomic_folder(snakemake.output[0]) as part,
    ):
        make_expert(
            Path(snakemake.input.base),
            Path(snakemake.input.training),
            snakemake.params.sources,
            snakemake.params.training,
            part,
        )
