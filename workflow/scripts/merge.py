"""Merge one subset of a base's checkpoints by one recipe: weights -> a model, YAML, summary."""

import logging

from wildmerge.factors import Factors, digests
from wildmerge.files import atomic_file, write_json
from wildmerge.jobs import job
from wildmerge.merging import merge, mergekit_yaml


def read_factors(folders, members, inputs):
    """The factors given, held against the digests of the weights: of each member, or of the sum."""
    if len(folders) == 1:
        return [Factors(folders[0], inputs)]
    wanted = [{"base": inputs["base"], member: inputs[member]} for member in members]
    return [Factors(folder, found) for folder, found in zip(folders, wanted, strict=True)]


if __name__ == "__main__":
    what = "merge {base}/{subset}/{recipe}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what, snakemake.threads):
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        members, recipe = snakemake.params.members, snakemake.params.recipe
        dtype = snakemake.params.dtype
        with atomic_file(snakemake.output.yaml) as part:
            text = mergekit_yaml(recipe, snakemake.params.references, members, dtype)
            part.write_text(text, encoding="utf-8")
        inputs = digests(members, snakemake.input.verdicts)
        folders = snakemake.input.get("factors", [])
        update = snakemake.input.get("unscaled")
        summary = merge(
            snakemake.input.base,
            dict(zip(members, snakemake.input.experts, strict=True)),
            recipe,
            snakemake.output.model,
            dtype=dtype,
            factors=read_factors(folders, members, inputs) if folders else (),
            unscaled=Factors(update, inputs) if update else None,
        )
        names = {key: snakemake.wildcards[key] for key in ("base", "subset", "recipe")}
        write_json(snakemake.output.summary, names | summary | {"inputs": inputs})
