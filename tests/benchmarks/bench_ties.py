"""What TIES costs on a model's largest tensor, against an earlier commit of this project.

    git archive COMMIT workflow | tar -x -C /tmp/old
    python tests/benchmarks/bench_ties.py [--old /tmp/old] [--rows 128256] [--steps 16] [--folder F]

Experts in bfloat16 of one embedding of `rows` x 4,096, an 8B model's with its 128,256 rows (14 GB
of disk; the earlier commit then wants 22 GB of memory), merged into bfloat16. `--steps` is how far
an expert lies from the base in steps of bfloat16 (a standard deviation): the fewer, the more
entries are equally large. Both sides are whole processes that take turns on the same files; without
`--old`, ours alone. Ours runs on one and on two threads, which must write the same bits. It is
given the experts' digests, which the workflow knows from their verdicts.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from bench_merge import ROOT, table, whole_process
from safetensors.torch import save_file

COLUMNS = 4096
STEP = 2.0**-14  # of bfloat16 at most of the base's weights
MERGE = """
import json, sys
import wildmerge
getattr(wildmerge, "use_huge_pages", lambda: None)()
import torch
from pathlib import Path
from wildmerge.merging import merge
job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
if job["experts"]:
    experts = {name: Path(path) for name, path in job["experts"].items()}
    summary = merge(
        Path(job["base"]), experts, job["recipe"], Path(job["output"]), **job["options"]
    )
    Path(job["output"] + ".json").write_text(json.dumps(summary))
"""


def make(folder: Path, rows: int, experts: int, steps: float) -> dict[str, str]:
    """Write base and experts, unless they are there: name -> folder."""
    paths = [folder / name for name in ["base", *(f"e{i:02}" for i in range(1, experts + 1))]]
    base = 0.02 * torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(0))
    for seed, path in enumerate(paths):
        if not (path / "model.safetensors").exists():
            path.mkdir(parents=True, exist_ok=True)
            weights = base.clone()
            if seed:
                noise = torch.Generator().manual_seed(seed)
                weights += steps * STEP * torch.randn(base.shape, generator=noise)
            tensors = {"model.embed_tokens.weight": weights.bfloat16()}
            save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
            for name in ("config.json", "tokenizer.json"):
                (path / name).write_text("{}")
    return {path.name: str(path) for path in paths}


def run(
    source: Path, method: str, paths: dict[str, str], threads: int, output: Path, **options
) -> dict:
    """One merge as a whole process: its seconds, memory and the digest of what it wrote."""
    parameters = {"combine": "mean", "density": 0.1, "lambda": 0.1}
    recipe = {"name": "ties", "label": "TIES", "merge_method": method, "parameters": parameters}
    job = {"base": paths["base"], "output": str(output), "recipe": recipe | {"version": 1}}
    job["options"] = options
    job["experts"] = {name: path for name, path in paths.items() if name != "base"}

    def process(job: dict) -> tuple[float, float, float]:
        command = [sys.executable, "-c", MERGE, json.dumps(job | {"threads": threads})]
        return whole_process(command, PYTHONPATH=str(source))

    # The interpreter with all that is imported, and nothing merged.
    wall, cpu, memory = process(job | {"experts": {}})
    found = process(job)
    digest = json.loads(Path(f"{output}.json").read_text())["output_digest"]
    return {
        "threads": threads,
        "wall s": found[0] - wall,
        "CPU s": found[1] - cpu,
        "peak GB": found[2],
        "beyond the interpreter": found[2] - memory,
        "digest": digest[:8],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, help="a folder with the workflow of another commit")
    parser.add_argument("--rows", type=int, default=128256)
    parser.add_argument("--experts", type=int, default=12)
    parser.add_argument("--steps", type=float, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-ties-"))
    try:
        paths = make(folder, arguments.rows, arguments.experts, arguments.steps)
        rows = []
        for _ in range(arguments.repeats):
            for threads in (1, 2):
                new = run(
                    *(ROOT / "workflow/src", "ties_hashed", paths, threads, folder / "new"),
                    digests={name: name for name in paths},
                )
                rows.append({"side": "ours"} | new)
                if arguments.old:
                    source = arguments.old / "workflow/scripts"
                    old = run(source, "ties", paths, threads, folder / "old")
                    rows.append({"side": "earlier"} | old)
                    ratios = {key: old[key] / new[key] for key in ("wall s", "CPU s")}
                    print(threads, "threads, earlier / ours:", ratios)
        title = f"TIES, {arguments.experts} experts, {arguments.rows} x {COLUMNS} in bfloat16"
        table(f"{title}, {arguments.steps} steps from the base", rows)
        written = {row["digest"] for row in rows if row["side"] == "ours"}
        assert len(written) == 1, f"not the same bits on one and two threads: {written}"
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
