"""Merge one subset of a base's checkpoints by one recipe: weights -> a model, YAML, summary."""

import logging
from pathlib import Path

from wildmerge.checkpoints.companions import CONVERSIONS
from wildmerge.files import atomic_file, read_json, write_json
from wildmerge.merging.factors import UPDATE, Factors, digests, unscaled
from wildmerge.merging.merge import merge, mergekit_yaml
from wildmerge.run.jobs import job
from wildmerge.sources.registry import source_of


def read_factors(folders, members, inputs):
    """The factors given, held against the digests of the weights: of each member, or of the sum."""
    if len(folders) == 1:
        return [Factors(folders[0], inputs)]
    wanted = [{"base": inputs["base"], member: inputs[member]} for member in members]
    return [Factors(folder, found) for folder, found in zip(folders, wanted, strict=True)]


def read_update(folder, recipe, inputs):
    """The update without its scale, held against the recipe and the digests of the weights."""
    return Factors(folder, inputs | {UPDATE: unscaled(recipe, len(inputs) - 1)})


def loaded(origin, folder):
    """What mergekit loads to get these weights: by their source's word, or the folder here."""
    record = Path(folder) / CONVERSIONS
    converted = record.exists() and read_json(record)["conversions"]
    return folder if converted else source_of(origin).mergekit_name(origin, folder)


if __name__ == "__main__":
    what = "merge {base}/{subset}/{recipe}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what, snakemake.threads):
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        members, recipe = snakemake.params.members, snakemake.params.recipe
        dtype = snakemake.params.dtype
        experts = dict(zip(members, snakemake.input.experts, strict=True))
        folders = {"base": snakemake.input.base} | experts
        origins = snakemake.params.references
        found = {name: loaded(origins[name], folder) for name, folder in folders.items()}
        notes = [f"# {found[m]} is {origins[m]}\n" for m in found if found[m] != origins[m]]
        with atomic_file(snakemake.output.yaml) as part:
            text = mergekit_yaml(recipe, found, members, dtype)
            part.write_text("".join([*notes, text]), encoding="utf-8")
        inputs = digests(members, snakemake.input.verdicts)
        factors = snakemake.input.get("factors", [])
        update = snakemake.input.get("unscaled")
        summary = merge(
            snakemake.input.base,
            experts,
            recipe,
            snakemake.output.model,
            dtype=dtype,
            factors=read_factors(factors, members, inputs) if factors else (),
            unscaled=read_update(update, recipe, inputs) if update else None,
        )
        names = {key: snakemake.wildcards[key] for key in ("base", "subset", "recipe")}
        write_json(snakemake.output.summary, names | summary | {"inputs": inputs})
