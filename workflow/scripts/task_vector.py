"""Measure one checkpoint's task vector and judge whether it can be merged with its base."""

from wildmerge.checkpoints import measure
from wildmerge.files import read_json, write_json
from wildmerge.run import content, job, once
from wildmerge.tensors import Weights, unchanged

if __name__ == "__main__":
    what = "task_vector {base}/{model}".format(**snakemake.wildcards)
    base, expert = snakemake.input.base, snakemake.input.expert
    row, output = snakemake.params.row, snakemake.output.verdict
    store = snakemake.config.get("shared")
    with job(snakemake.log[0], what, snakemake.threads):
        key = {"rule": "task_vector", "row": row}
        if store:
            key |= {"base": content(base), "expert": content(expert)}
        once(
            store,
            key,
            [output],
            lambda: write_json(output, measure(base, expert, row)),
            rooms=("checkpoints", "tensors"),
            # A third of the job's time, in seconds: what the plan gives it.
            patience=20 * snakemake.resources.runtime,
        )
        verdict = read_json(output)
        if store and verdict["digest"]:
            # It may be another clone's: these are the weights that it is about.
            digests = [verdict["base_digest"], verdict["digest"]]
            with unchanged([Weights(base), Weights(expert)], what, digests):
                pass
