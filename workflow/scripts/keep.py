"""Keep a merge: its weights, the mergekit YAML, the summary, and a model card with its scores."""

import os
import shutil
from pathlib import Path

from wildmerge.analysis import check_digests, read_table
from wildmerge.files import atomic_folder, read_json
from wildmerge.merging import moved
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
        check_digests([snakemake.input.summary, *snakemake.input.scores])
        summary = read_json(snakemake.input.summary)
        scores = [read_json(path) for path in snakemake.input.scores]
        comparisons = read_table(snakemake.input.comparisons)
        config = Path(snakemake.params.config)
        sheet = apply_lock(read_rows(config / "models.tsv"), read_lock(config / LOCK))
        yaml, folder = Path(snakemake.input.yaml), Path(snakemake.output[0]).parent
        with atomic_folder(folder) as part:
            ours = shutil.ignore_patterns(".snakemake*")
            shutil.copytree(snakemake.input.model, part, ignore=ours, copy_function=link,
                            dirs_exist_ok=True)  # fmt: skip
            shutil.copy2(snakemake.input.summary, part)
            text = moved(yaml.read_text(encoding="utf-8"), yaml.parent, folder)
            (part / yaml.name).write_text(text, encoding="utf-8")
            card = model_card(summary, scores, comparisons, sheet)
            (part / "README.md").unlink(missing_ok=True)  # mergekit's may share its inode
            (part / "README.md").write_text(card, encoding="utf-8")
