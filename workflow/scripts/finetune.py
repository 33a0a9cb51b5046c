"""Fine-tune a base on one kind of text: a checkpoint such as people publish."""

from pathlib import Path

from wildmerge.checkpoints import make_expert
from wildmerge.files import atomic_folder, write_json
from wildmerge.home import config_folder
from wildmerge.run import job
from wildmerge.study import check_expert

if __name__ == "__main__":
    what = f"finetune {snakemake.wildcards.trained}"
    expert = snakemake.params.expert
    with (
        job(
            snakemake.log[0],
            what,
            snakemake.threads,
            snakemake.resources.get("gpu", 0),
            expert["training"].get("portable", False),
        ),
        atomic_folder(snakemake.output.checkpoint) as part,
    ):
        learned = make_expert(
            Path(snakemake.input.base), Path(snakemake.input.training), expert, part
        )
        # Deliberately no input: an expert that is noted there must not be made again for it.
        check_expert(config_folder(), snakemake.wildcards.trained, learned)
        write_json(snakemake.output.learned, learned)
