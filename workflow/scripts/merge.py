"""Merge one subset of a base's checkpoints by one recipe: weights -> a model, YAML, summary."""

import logging

from wildmerge.files import atomic_file, read_json, write_json
from wildmerge.jobs import job
from wildmerge.merging import merge, mergekit_yaml


def inputs(members, verdicts):
    """Digests of the base and of each member, from their verdicts (in the order of the members)."""
    found = [read_json(path) for path in verdicts]
    base = {"base": found[0]["base_digest"]} if found else {}
    return base | {m: v["digest"] for m, v in zip(members, found, strict=True)}


if __name__ == "__main__":
    what = "merge {base}/{subset}/{recipe}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what, snakemake.threads):
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        members, recipe = snakemake.params.members, snakemake.params.recipe
        with atomic_file(snakemake.output.yaml) as part:
            part.write_text(
                mergekit_yaml(recipe, snakemake.params.references, members, snakemake.params.dtype),
                encoding="utf-8",
            )
        summary = merge(
            snakemake.input.base,
            dict(zip(members, snakemake.input.experts, strict=True)),
            recipe,
            snakemake.output.model,
            dtype=snakemake.params.dtype,
        )
        names = {key: snakemake.wildcards[key] for key in ("base", "subset", "recipe")}
        digests = {"inputs": inputs(members, snakemake.input.verdicts)}
        write_json(snakemake.output.summary, names | summary | digests)
