"""Score one model on one suite of benchmarks: every task's accuracy and every question's outcome.

A job that dies is continued: tasks it had finished lie in a hidden folder beside the scores.
"""

import shutil
from pathlib import Path

from wildmerge.jobs import job

if __name__ == "__main__":
    w, params = snakemake.wildcards, snakemake.params
    what = f"evaluate {w.base}/{w.subset}/{w.recipe} on suite {w.suite}"
    with job(snakemake.log[0], what, snakemake.threads):
        from wildmerge.prompts import offline

        offline()
        import pyarrow.parquet as pq
        from wildmerge.evaluation import evaluate
        from wildmerge.files import atomic_file, write_json

        output = Path(snakemake.output.scores)
        resume = output.with_name(f".{w.suite}.tasks")
        scores, items = evaluate(
            snakemake.input.model,
            snakemake.input.suite,
            snakemake.input.prompts,
            backend=params.backend,
            batch_size=params.batch_size,
            dtype=params.suite["dtype"],
            softmax_dtype=params.suite.get("softmax_dtype"),
            resume=resume,
        )
        with atomic_file(snakemake.output.questions) as part:
            pq.write_table(items, part, compression="zstd")
        name = {key: w[key] for key in ("base", "subset", "recipe", "suite")}
        write_json(output, {**name, "members": list(params.members), **scores})
        shutil.rmtree(resume)
