"""One job of the toy workflow: note start and end in journal/, make the outputs, or go wrong."""

import hashlib
import json
import os
import time
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.run import device, job


def note(event: str, what: str) -> None:
    """Append one line to the journal of this Slurm job."""
    record = {
        "event": event,
        "what": what,
        "time": time.time(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "node": os.environ.get("SLURMD_NODENAME"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    Path("journal").mkdir(exist_ok=True)
    with open(f"journal/{record['job']}.jsonl", "a") as journal:
        print(json.dumps(record), file=journal)


def go_wrong(how: str, log: str) -> None:
    """Fail always ("exit", "broken"), or want more than a first attempt gets ("memory", "time")."""
    if how == "exit":
        Path(log).write_text("tensor model.layers.0.mlp.up_proj.weight: NaN\n")
        raise SystemExit("told to fail")
    if how == "broken":
        with job(log, "the toy"):
            raise WildmergeError("Weights were expected, found NaN.")
    if how == "memory":  # MB: more than 1,000, less than 2,000
        block = b"x" * (1300 << 20)
        time.sleep(5)
        del block
    if how == "time":  # more than the 2 minutes of merge and evaluation, less than twice that
        time.sleep(150)


def outcome(model: str) -> str:
    """What an evaluation finds: a digest of the weights."""
    return hashlib.sha256(Path(model, "weights").read_bytes()).hexdigest()


if __name__ == "__main__":
    rule, wildcards = snakemake.rule, list(snakemake.wildcards)
    what = "/".join([rule, *wildcards])
    with device(snakemake.resources.get("gpu", 0)):
        note("start", what)
        fault = Path("faults", ".".join([rule, *wildcards[1:3]]))
        if fault.exists():
            go_wrong(fault.read_text(), snakemake.log[0])
        for path in map(Path, snakemake.output):
            if path.suffix == ".json":
                if rule == "task_vector":
                    time.sleep(snakemake.config["seconds"])
                text = outcome(snakemake.input.model) if rule == "evaluate" else what
                path.write_text(json.dumps(text))
            else:
                # Slowly and in pieces, as real weights are written.
                path.mkdir(parents=True)
                for _ in range(10):
                    with open(path / "weights", "a") as weights:
                        weights.write(what * 100)
                    time.sleep(snakemake.config["seconds"] / 10)
        note("end", what)
