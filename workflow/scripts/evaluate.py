"""Score one model on one suite of benchmarks: every task's accuracy and every question's outcome.

A job that dies is continued: tasks it had finished lie in a hidden folder beside the scores.
"""

import shutil
from functools import partial
from pathlib import Path

from wildmerge.run import job

if __name__ == "__main__":
    w, params = snakemake.wildcards, snakemake.params
    what = f"evaluate {w.base}/{w.subset}/{w.recipe} on suite {w.suite}"
    with job(snakemake.log[0], what, snakemake.threads, snakemake.resources.get("gpu", 0)):
        from wildmerge.evaluation import offline

        offline()
        import pyarrow.parquet as pq
        import torch
        from wildmerge.evaluation import evaluate
        from wildmerge.files import atomic_file, read_json, write_json
        from wildmerge.run import content, once
        from wildmerge.study import IDENTITY
        from wildmerge.tensors import known_digest, told_digest

        model, suite, prompts = (
            Path(snakemake.input[key]) for key in ("model", "suite", "prompts")
        )
        output = Path(snakemake.output.scores)
        resume = output.with_name(f".{w.suite}.tasks")
        name = {key: w[key] for key in ("base", "subset", "recipe", "suite")}
        name |= {"members": list(params.members)}
        settings = {"backend": params.backend, "batch_size": params.batch_size}
        settings |= {key: params.suite.get(key) for key in ("dtype", "softmax_dtype")}
        if params.generation_backend:
            settings["generation_backend"] = params.generation_backend

        # A merge has written the digest of its weights beside them, a verdict that of a checkpoint.
        summary = snakemake.input.get("summary")
        digest = known_digest
        if summary:
            told = read_json(summary)["output_digest"]
            digest = partial(told_digest, told=told, by=summary)

        def score() -> None:
            """Score the model, write both outputs and forget the finished tasks."""
            scores, outcomes = evaluate(
                model, suite, prompts, resume=resume, digest=digest, **settings
            )
            with atomic_file(snakemake.output.questions) as part:
                pq.write_table(outcomes, part, compression="zstd")
            write_json(output, name | scores)
            shutil.rmtree(resume)

        # Unmerged models are in many studies; a merge is not worth a place in the store.
        store = snakemake.config.get("shared") if w.recipe == IDENTITY else None
        key = {"rule": "evaluate"} | name | settings
        if store:
            key |= {
                "model": content(model),
                "suite": read_json(suite / "suite.json")["digest"],
                "clusters": read_json(suite / "suite.json").get("clusters", {}),
                "prompts": read_json(prompts / "prompts.json")["digest"],
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            }
        # A third of the job's time, in seconds: what the plan gives it.
        wait = 20 * snakemake.resources.runtime
        rooms = ("evaluation", "tensors")
        once(store, key, list(snakemake.output), score, rooms, patience=wait)
