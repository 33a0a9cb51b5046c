"""What merging costs, against mergekit and against the equations written plainly.

    make bench-merge                                  all but `memory`, half an hour on two cores
    python tests/benchmarks/bench_merge.py [WHAT ...] [--model M] [--repeats N] [--folder F]

WHAT: task_arithmetic, ties, model_stock, sweep, subspace, memory.

Synthetic experts in bf16 at the shapes of one layer of Llama-3.2-3B or Qwen3-4B: noise on every
weight and a few strong directions, as fine-tuning leaves them. Both sides read the same files in
the same run. Times are of a whole process where mergekit is the other side, of the computation
alone where it is a plain implementation; there one matrix of each shape is timed and counted as
often as a layer has it. `sweep` is ten values of lambda with and without an update made once;
`memory` is the peak with a whole vocabulary, a model's largest tensor (11 GB of disk).
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow/src"), str(ROOT / "tests")]

import torch  # noqa: E402
import yaml  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from wildmerge import use_huge_pages  # noqa: E402
from wildmerge.merging import streaming as merging  # noqa: E402
from wildmerge.merging.precompute import write_update  # noqa: E402
from wildmerge.merging.recipe_yaml import mergekit_yaml  # noqa: E402
from wildmerge.merging.shared import SharedUpdate  # noqa: E402
from wildmerge.methods import is_projection, iso_c, subspace_boosting, tsv_m  # noqa: E402
from wildmerge.tensors import spectral  # noqa: E402
from wildmerge.tensors.weights import Weights  # noqa: E402

RECIPES = {
    name: recipe | {"name": name}
    for name, recipe in yaml.safe_load((ROOT / "config/recipes.yaml").read_text()).items()
}
VOCAB = 4096
MODELS = {
    "llama-3.2-3b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "qwen3-4b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}


def shapes(model: str, vocabulary: int = VOCAB) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a model of one layer and, unless told otherwise, a small vocabulary."""
    c = MODELS[model]
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    layer = {
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    if model == "qwen3-4b":
        layer |= {"self_attn.q_norm": (c["head_dim"],), "self_attn.k_norm": (c["head_dim"],)}
    names = {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    ends = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    return ends | names


def delta(shape, generator) -> torch.Tensor:
    """A task vector as fine-tuning leaves it: noise, and eight strong directions."""
    noise = 1e-3 * torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return noise
    left = torch.randn(shape[0], 8, generator=generator) * torch.logspace(-3, -2, 8)
    return noise + left @ torch.randn(8, shape[1], generator=generator) * 0.3


def make(
    folder: Path, model: str, experts: int, vocabulary: int = VOCAB
) -> tuple[Path, dict[str, Path]]:
    """Write the base and the experts, unless they are there."""
    home = folder / f"{model}-{vocabulary}"
    paths = [home / name for name in ["base", *(f"e{i:02}" for i in range(experts))]]
    config = MODELS[model] | {
        "num_hidden_layers": 1,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
    }
    generator = torch.Generator().manual_seed(0)
    sizes = shapes(model, vocabulary)
    base = {n: 0.02 * torch.randn(size, generator=generator) for n, size in sizes.items()}
    for seed, path in enumerate(paths):
        if (path / "model.safetensors").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        moved = {
            n: (w + delta(w.shape, generator) if seed else w).bfloat16() for n, w in base.items()
        }
        save_file(moved, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps(config))
        (path / "tokenizer.json").write_text("{}")
        (path / "tokenizer_config.json").write_text("{}")
    return paths[0], {path.name: path for path in paths[1:]}


def table(title: str, rows: list[dict]) -> None:
    print(f"\n## {title}")
    if rows:
        print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        print("| " + " | ".join(cells) + " |")
    sys.stdout.flush()


def whole_process(command, **environment) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in GB of a child process."""
    # What `main` sets for our merges is not for others.
    own = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        env=own | {"HF_HUB_OFFLINE": "1"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Not getrusage: its peak begins with that of the process that started the other one.
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while True:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        pid, code, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(code)
    wall = time.perf_counter() - start
    assert process.returncode == 0, command
    return wall, usage.ru_utime + usage.ru_stime, peak / 1e9


# The whole process of one merge, as the workflow's script makes it.
OURS = """
import json, sys
from pathlib import Path
from wildmerge import use_huge_pages
from wildmerge.merging.streaming import merge
use_huge_pages()
job = json.loads(sys.argv[1])
summary = merge(Path(job["base"]), {k: Path(v) for k, v in job["experts"].items()}, job["recipe"],
                Path(job["output"]))
Path(job["output"] + ".json").write_text(json.dumps(summary))
"""


def our_process(folder: Path, base: Path, experts: dict, recipe: dict):
    """Time, CPU time and peak memory of one merge as a whole process, and its summary."""
    job = {"base": str(base), "experts": {name: str(path) for name, path in experts.items()}}
    job |= {"recipe": recipe, "output": str(folder / "ours")}
    run = whole_process(
        [sys.executable, "-c", OURS, json.dumps(job)], PYTHONPATH=str(ROOT / "workflow/src")
    )
    return run, json.loads((folder / "ours.json").read_text())


def copying(base, experts, output) -> float:
    """Seconds to read all the inputs and write one of them, whole files at a time."""
    start = time.perf_counter()
    for path in [*experts.values(), base]:
        with open(path / "model.safetensors", "rb") as file:
            content = file.read()
    with open(output, "wb") as file:
        file.write(content)
    seconds = time.perf_counter() - start
    output.unlink()
    return seconds


LINEAR = ("task_arithmetic", "ties", "model_stock")


def linear(folder: Path, model: str, methods: list[str], repeats: int) -> None:
    """TA, TIES and Model Stock against mergekit-yaml: whole processes, same files."""
    base, experts = make(folder, model, 12)
    paths = {name: str(path) for name, path in experts.items()}
    read = sum(e.nbytes for e in Weights(base).values()) * (len(experts) + 1)
    rows = []
    for name in methods:
        theirs, ours, inner, copies = [], [], [], []
        text = mergekit_yaml(RECIPES[name], paths | {"base": str(base)}, list(paths), "bfloat16")
        (folder / "mergekit.yaml").write_text(text)
        command = [Path(sys.executable).with_name("mergekit-yaml"), folder / "mergekit.yaml"]
        for _ in range(repeats):
            shutil.rmtree(folder / "theirs", ignore_errors=True)
            copies.append(copying(base, experts, folder / "copy"))
            run, summary = our_process(folder, base, experts, RECIPES[name])
            ours.append(run)
            inner.append(summary["seconds"])
            theirs.append(
                whole_process([*command, folder / "theirs", "--quiet", "--no-write-model-card"])
            )
        start, one, other = Weights(base), Weights(folder / "ours"), Weights(folder / "theirs")
        apart = squares = 0.0
        for tensor in start:
            found = one.read(tensor).double()
            apart += (found - other.read(tensor).double()).square().sum().item()
            squares += (found - start.read(tensor).double()).square().sum().item()
        wall, peer = (statistics.median(x[0] for x in runs) for runs in (ours, theirs))
        rows.append(
            {
                "method": name,
                "GB read": read / 1e9,
                "copying s": statistics.median(copies),
                "ours s": wall,
                "without start-up s": statistics.median(inner),
                "mergekit s": peer,
                "ratio": statistics.median(t[0] / o[0] for o, t in zip(ours, theirs, strict=True)),
                "CPU s": statistics.median(x[1] for x in ours),
                "mergekit CPU s": statistics.median(x[1] for x in theirs),
                "peak GB": max(x[2] for x in ours),
                "mergekit GB": max(x[2] for x in theirs),
                "of copying": statistics.median(i / c for i, c in zip(inner, copies, strict=True)),
                "apart (of the update)": (apart / squares) ** 0.5,
            }
        )
    largest = max(torch.Size(s).numel() for s in shapes(model).values()) * 4 / 1e9
    table(
        f"Linear methods, {model}, one layer, 12 experts; 14 of its largest tensors in float32 are "
        f"{14 * largest:.2f} GB",
        rows,
    )


LAMBDAS = [0.1 * i for i in range(1, 11)]


def sweep(folder: Path, model: str, repeats: int) -> None:
    """Ten values of lambda of one subset: each by itself, and from an update made once."""
    base, experts = make(folder, model, 12)
    rows = []
    for name in ("task_arithmetic", "ties"):
        recipe = RECIPES[name]
        points = [recipe | {"parameters": recipe["parameters"] | {"lambda": x}} for x in LAMBDAS]
        runs = []
        for _ in range(repeats):
            alone = [merging.merge(base, experts, p, folder / "alone") for p in points]
            members = list(experts.values())
            seconds, _ = timed(write_update, base, members, recipe, folder / "update", {})
            update = [SharedUpdate(folder / "update") for _ in points]
            shared = [
                merging.merge(base, experts, p, folder / "shared", shared=u)
                for p, u in zip(points, update, strict=True)
            ]
            assert [s["output_digest"] for s in alone] == [s["output_digest"] for s in shared]
            once = sum(e.nbytes for e in Weights(base).values()) * (len(experts) + 1)
            runs.append(
                {
                    "method": name,
                    "alone s": sum(s["seconds"] for s in alone),
                    "shared s": seconds + sum(s["seconds"] for s in shared),
                    "alone GB read": sum(s["bytes_read"] for s in alone) / 1e9,
                    "shared GB read": (once + sum(s["bytes_read"] for s in shared)) / 1e9,
                }
            )
        runs.sort(key=lambda run: run["alone s"] / run["shared s"])
        middle = runs[len(runs) // 2]
        rows.append(middle | {"ratio": middle["alone s"] / middle["shared s"], "same bits": "yes"})
    table(f"Ten values of lambda, {model}, one layer, 12 experts", rows)


def memory(folder: Path, model: str) -> None:
    """Peak memory with the whole vocabulary, against tensors of its size in float32."""
    vocabulary = {"llama-3.2-3b": 128256, "qwen3-4b": 151936}[model]
    base, experts = make(folder, model, 12, vocabulary)
    tensor = vocabulary * MODELS[model]["hidden_size"] * 4 / 1e9
    rows = []
    for name in LINEAR:
        (wall, _, peak), _ = our_process(folder, base, experts, RECIPES[name])
        rows.append(
            {"method": name, "s": wall, "peak GB": peak, "of 14 tensors": peak / 14 / tensor}
        )
    table(
        f"{model}, vocabulary of {vocabulary}, 12 experts; its embedding in float32 is "
        f"{tensor:.2f} GB, 14 of them {14 * tensor:.1f} GB",
        rows,
    )


# --- Subspace methods against torch.linalg.svd --------------------------------------------------

SIZES = {2: 15, 4: 15, 6: 15, 8: 15, 10: 15, 12: 1}  # the paper's 76 subsets of 12 experts
BETAS = [i / 10 for i in range(10)]


def timed(function, *arguments, **keywords):
    """(seconds, result)"""
    start = time.perf_counter()
    result = function(*arguments, **keywords)
    return time.perf_counter() - start, result


def svd(matrix):
    return torch.linalg.svd(matrix, full_matrices=False)


def plain_boost(u, s, vt, beta):
    share = s.cumsum(0) / s.sum()
    return (u * s.clamp(min=s[int((share < beta).sum())].item())) @ vt


def exact(matrix):
    """The singular value decomposition in float64, by the eigenproblem of the shorter side's Gram
    matrix: exact enough here (the condition number is printed), and some minutes faster."""
    squares, u = torch.linalg.eigh(matrix.double() @ matrix.double().mT)
    s, u = squares.flip(0).sqrt(), u.flip(1)
    return u, s, (u.mT @ matrix.double()) / s[:, None]


def error(found, expected) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


def family(shape, experts: int):
    """A base's matrix and experts' in bf16, the shorter side first."""
    generator = torch.Generator().manual_seed(0)
    base = 0.02 * torch.randn(shape, generator=generator)
    return base.bfloat16(), [(base + delta(shape, generator)).bfloat16() for _ in range(experts)]


def subspace(model: str, repeats: int) -> None:
    """Iso-C; Iso-C, TA + SB and a sweep of ten from one factorisation; TSV-M over 76 subsets."""
    counts = {}
    for name, shape in shapes(model).items():
        if is_projection(name, shape):
            counts[tuple(sorted(shape))] = counts.get(tuple(sorted(shape)), 0) + 1
    rows, layer = [], {}
    for shape, count in counts.items():
        row = _one_shape(shape, repeats)
        rows.append({"matrix": f"{shape[0]} x {shape[1]}", "in a layer": count} | row)
        for key, value in row.items():
            if key.endswith(" s"):
                layer[key] = layer.get(key, 0.0) + count * value
    table(f"Subspace methods, {model}, seconds a matrix", rows)
    merges = sum(SIZES.values())
    singles = sum(size * count for size, count in SIZES.items())
    ours = {
        "Iso-C alone, one subset": layer["Iso-C s"],
        "Iso-C + TA + SB + a beta sweep of 10": layer["factors s"] + 12 * layer["rebuild s"],
        "TSV-M, 76 subsets of 12 experts (scaled)": 12 * layer["expert s"]
        + merges * layer["TSV merge s"],
    }
    plain = {
        "Iso-C alone, one subset": layer["svd s"] + layer["plain rebuild s"],
        "Iso-C + TA + SB + a beta sweep of 10": 12 * (layer["svd s"] + layer["plain rebuild s"]),
        "TSV-M, 76 subsets of 12 experts (scaled)": singles * layer["svd s"]
        + merges * layer["plain Procrustes s"],
    }
    table(
        f"One layer of {model}: {sum(counts.values())} matrices; plain: {singles} + {2 * merges} "
        "singular value decompositions a matrix for TSV-M, 12 for the sweep, 1 for Iso-C",
        [
            {
                "job": job,
                "ours s": ours[job],
                "plain s": plain[job],
                "ratio": plain[job] / ours[job],
            }
            for job in ours
        ],
    )
    by_experts, by_subsets = [], []
    done, ours, theirs = 0, 12 * layer["expert s"], 0.0
    for n, count in SIZES.items():
        alone = n * layer["svd s"] + layer["plain Procrustes s"]
        merge = layer["TSV merge s"]
        factored = n * layer["expert s"] + merge
        by_experts.append(
            {"experts": n, "a merge s": merge, "with factoring s": factored, "plain s": alone}
        )
        done, ours, theirs = done + count, ours + count * merge, theirs + count * alone
        row = {"subsets": done, "of up to": n, "ours s": ours, "plain s": theirs}
        by_subsets.append(row | {"ratio": theirs / ours})
    table(f"TSV-M of one layer of {model} by the number of experts (scaled)", by_experts)
    table(
        f"TSV-M of one layer of {model} by the number of subsets of 12 experts (scaled)", by_subsets
    )


def whole_merges(folder: Path, model: str) -> None:
    """Whole processes that merge four experts by the subspace methods, twice each."""
    base, experts = make(folder, model, 4)
    rows = []
    for name in ("iso_c", "task_arithmetic_sb", "tsv_m"):
        runs, summaries = [], []
        for _ in range(2):
            run, summary = our_process(folder, base, experts, RECIPES[name])
            runs.append(run)
            summaries.append(summary)
        one, other = (summary["output_digest"] for summary in summaries)
        rows.append(
            {
                "method": name,
                "s": min(run[0] for run in runs),
                "GB read": summaries[0]["bytes_read"] / 1e9,
                "peak GB": max(run[2] for run in runs),
                "same bits twice": "yes" if one == other else "NO",
            }
        )
    table(f"Whole merges by the subspace methods, {model}, one layer, 4 experts", rows)


def _one_shape(shape, repeats: int) -> dict:
    """Times of one matrix: medians of paired runs, and errors against float64."""
    runs = []
    base, experts = family(shape, 4)
    deltas = [expert.float() - base.float() for expert in experts]
    total = sum(deltas)
    u, s, vt = exact(total)
    isotropic, boosted = s.mean() * (u @ vt), plain_boost(u, s, vt, 0.2)
    choices = {"combine": "sum", "lambda_": 1.0}
    kept = tsv_m.share(shape, len(experts))
    procrustes = _exact_tsv(deltas, kept)
    for _ in range(repeats):
        run = {}
        run["Iso-C s"], found = timed(iso_c.update, base, experts, rank="all", **choices)
        run["Iso-C error"] = error(found, isotropic)
        run["factors s"], factors = timed(spectral.factorize, total)
        run["rebuild s"], found = timed(
            subspace_boosting.from_factors, factors, base, experts, beta=0.2, rank="all", **choices
        )
        run["SB error"] = error(found, boosted)
        run["svd s"], plain = timed(svd, total)
        run["plain rebuild s"], found = timed(plain_boost, *plain, 0.2)
        run["plain SB error"] = error(found, boosted)
        run["expert s"], first = timed(spectral.leading, deltas[0], tsv_m.share(shape, 2))
        known = [[part[:kept] for part in first]]
        known += [spectral.leading(change, kept) for change in deltas[1:]]
        run["TSV merge s"], merged = timed(tsv_m.update, base, experts, factors=known, **choices)
        run["TSV-M error"] = error(merged, procrustes)
        near = torch.cat([vectors for _, vectors in known]).mT.contiguous()
        far = torch.cat(
            [
                vectors @ change / values[:, None]
                for (values, vectors), change in zip(known, deltas, strict=True)
            ]
        )
        run["plain Procrustes s"], _ = timed(_plain_procrustes, near, far)
        runs.append(run)
    return {"condition": (s[0] / s[-1]).item()} | {
        key: statistics.median(run[key] for run in runs) for key in runs[0]
    }


def _exact_tsv(deltas, kept: int):
    """TSV-M in float64: leading directions of each expert, both sides made orthonormal."""
    parts = [exact(change) for change in deltas]
    near = torch.cat([u[:, :kept] for u, _, _ in parts], 1)
    far = torch.cat([vt[:kept] for _, _, vt in parts])
    values = torch.cat([s[:kept] for _, s, _ in parts])
    (a, _, b), (c, _, d) = exact(near), exact(far)
    return ((a @ b) * values) @ (c @ d)


def _plain_procrustes(near, far):
    pu, _, qut = svd(near)
    pv, _, qvt = svd(far)
    return (pu @ qut) @ (pv @ qvt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", default=[*LINEAR, "sweep", "subspace"])
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    use_huge_pages()
    torch.set_num_threads(os.cpu_count())
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-merge-"))
    try:
        for model in arguments.model or MODELS:
            if methods := [name for name in LINEAR if name in arguments.what]:
                linear(folder, model, methods, arguments.repeats)
            if "sweep" in arguments.what:
                sweep(folder, model, arguments.repeats)
            if "subspace" in arguments.what:
                subspace(model, arguments.repeats)
                whole_merges(folder, model)
            if "memory" in arguments.what:
                memory(folder, model)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
