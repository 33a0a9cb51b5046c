"""Keep a merge: its weights, the mergekit YAML, the summary, and a model card with its scores."""

import os
import shutil
from pathlib import Path

from wildmerge.analysis import read_table
from wildmerge.files import atomic_folder, read_json
from wildmerge.reporting import model_card
from wildmerge.run import job
from wildmerge.sources import LOCK, apply_lock, read_lock
from wildmerge.study import read_rows


def link(source, target):
    """Give a file a second name where the file system can, else copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


if __name__ == "__main__":
    what = "keep {base}/{subset}/{recipe} of {study}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what):
        summary = read_json(snakemake.input.summary)
        scores = [read_json(path) for path in snakemake.input.scores]
        comparisons = read_table(snakemake.input.comparisons)
        config = Path(snakemake.params.config)
        sheet = apply_lock(read_rows(config / "models.tsv"), read_lock(config / LOCK))
        with atomic_folder(snakemake.output[0]) as part:
            ours = shutil.ignore_patterns(".snakemake*")
            shutil.copytree(snakemake.input.model, part, ignore=ours, copy_function=link,
                            dirs_exist_ok=True)  # fmt: skip
            for path in (snakemake.input.summary, snakemake.input.yaml):
                shutil.copy2(path, part)
            card = model_card(summary, scores, comparisons, sheet)
            (part / "README.md").unlink(missing_ok=True)  # mergekit's may share its inode
            (part / "README.md").write_text(card, encoding="utf-8")
