"""Merge one subset of a base's checkpoints by one recipe: weights -> a model, YAML, summary."""

import logging
import os
from pathlib import Path

from wildmerge.checkpoints import CONVERSIONS
from wildmerge.files import atomic_file, read_json, write_json
from wildmerge.merging import digests, merge, mergekit_yaml, open_shared
from wildmerge.run import job, settle
from wildmerge.sources import source_of


def loaded(origin: str, folder: str, place: Path) -> str:
    """What mergekit loads to get these weights, from a YAML that lies in `place`.

    By their source's own word, or the folder here where they were converted.
    """
    record = Path(folder) / CONVERSIONS
    converted = record.exists() and read_json(record)["conversions"]
    there = os.path.relpath(folder, place)
    return there if converted else source_of(origin).mergekit_name(origin, there)


if __name__ == "__main__":
    what = "merge {base}/{subset}/{recipe}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what, snakemake.threads, snakemake.resources.get("gpu", 0)):
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        members, recipe = snakemake.params.members, snakemake.params.recipe
        dtype = snakemake.params.dtype
        experts = dict(zip(members, snakemake.input.experts, strict=True))
        folders = {"base": snakemake.input.base} | experts
        origins = snakemake.params.references
        place = Path(snakemake.output.yaml).parent
        references = {
            name: loaded(origins[name], folder, place) for name, folder in folders.items()
        }
        inputs = digests(members, snakemake.input.verdicts)
        shared = open_shared(
            recipe,
            members,
            inputs,
            snakemake.input.get("factors", []),
            snakemake.input.get("unscaled"),
        )
        scratch, output = snakemake.config.get("scratch"), snakemake.output.model
        summary = merge(
            snakemake.input.base,
            experts,
            recipe,
            output,
            dtype=dtype,
            shared=shared,
            digests=inputs,
            # A third of the job's time, in seconds: what the plan gives it.
            room=settle(scratch, output, 20 * snakemake.resources.runtime),
        )
        with atomic_file(snakemake.output.yaml) as part:
            bounds = summary.get("bounds")
            text = mergekit_yaml(recipe, references, members, dtype, origins, inputs, bounds)
            part.write_text(text, encoding="utf-8")
        names = {key: snakemake.wildcards[key] for key in ("base", "subset", "recipe")}
        write_json(snakemake.output.summary, names | summary | {"inputs": inputs})
