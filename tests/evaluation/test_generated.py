"""Generated answers and texts: asked, measured and kept as lm-eval's command line does."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pico
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from project import ROOT
from safetensors.torch import load_file, save_file
from test_suites import PIQA, wheel
from wildmerge import WildmergeError
from wildmerge.analysis.comparisons import read_outcomes
from wildmerge.evaluation import export, prompts, suites
from wildmerge.evaluation.outcomes import NEGATIVE_BITS, OUTCOMES_WITH_TEXT
from wildmerge.evaluation.scoring import evaluate
from wildmerge.files import read_json, write_json
from wildmerge.validation import validate

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/suites.schema.yaml").read_text())
SUMS = [
    {"question": f"What is {i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"}
    for i in range(5)
]
# With weights this large a pico model writes digits here and there.
GENERATION = {"max_gen_toks": 24}
OWN_TASKS = """\
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sums.jsonl}}}}
output_type: generate_until
test_split: test
doc_to_text: !function own.question
doc_to_target: answer
process_results: !function own.results
metric_list:
  - {{metric: letters, aggregation: mean, higher_is_better: true}}
generation_kwargs: {{until: ["e"], do_sample: false, max_gen_toks: 20}}
"""
OWN_PYTHON = """\
def question(doc):
    return "Q: " + doc["question"]


def results(doc, results):
    return {"letters": sum(map(str.isalpha, results[0])) / 20}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pico model; a suite of multiple choice, generated answers, and one's own tasks."""
    folder = tmp_path_factory.mktemp("generated")
    pico.llama(folder / "model", initializer_range=0.5, dtype=torch.float32)
    _, source = wheel(folder / "wheels", PIQA, sums=SUMS)
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    (folder / "own").mkdir()
    (folder / "own/sums.yaml").write_text(OWN_TASKS.format(folder=folder))
    (folder / "own/own.py").write_text(OWN_PYTHON)
    paragraphs = [f"{'A line of text. ' * (i + 1)}\nAnd {i} more.\n" for i in range(6)]
    (folder / "own.txt").write_text("\n".join(paragraphs))
    gsm8k = {"num_fewshot": 0, "files": {"test": "some/sums.arrow"}}
    gsm8k |= {"metric": "exact_match,flexible-extract", "generation_kwargs": GENERATION}
    mixed = {
        "gsm8k": gsm8k,
        "piqa": {"metric": "acc", "num_fewshot": 0, "files": {"validation": "some/piqa.arrow"}},
        "short": {"metric": "exact_match", "file": str(folder / "sums.jsonl")},
    }
    own = {"sums": {"metric": "letters", "num_fewshot": 0}}
    texts = {"own": {"metric": "bits_per_byte", "file": str(folder / "own.txt")}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WILDMERGE_WHEELS", str(folder / "wheels"))
        for name, more in {
            "mixed": {"source": source, "tasks": mixed},
            "included": {"include_path": str(folder / "own"), "tasks": own},
            "texts": {"tasks": texts},
        }.items():
            spec = {"description": name, "dtype": "float32"} | more
            validate({name: spec}, SCHEMA, "suites.yaml")
            suites.fetch_suite(name, spec, folder / name / "suite")
            prompts.tokenize(folder / "model", folder / name / "suite", folder / name / "prompts")
    return folder


def score(folder, suite, model=None, **more):
    more = {"dtype": "float32", "batch_size": 4, "device": "cpu"} | more
    home = folder / suite
    return evaluate(model or folder / "model", home / "suite", home / "prompts", **more)


def command_line(folder, suite, out, leaves):
    """Results and samples of lm-eval's own command line on a suite's task files."""
    # fmt: off
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", *leaves,
        "--model_args", f"pretrained={folder / 'model'},dtype=float32", "--device", "cpu",
        "--batch_size", "4", "--include_path", str(folder / suite / "suite/tasks"), "--log_samples",
        "--output_path", str(out),
    ]
    # fmt: on
    env = os.environ | {"HF_HOME": str(out / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return read(out, leaves)


def read(out, leaves):
    results = read_json(next(out.glob("**/results_*.json")))["results"]
    samples = {}
    for leaf in leaves:
        (file,) = out.glob(f"**/samples_{leaf}_*.jsonl")
        samples[leaf] = [json.loads(line) for line in file.read_text().splitlines()]
    return results, samples


# The schema of google/IFEval and of EleutherAI/hendrycks_math, ten documents each.
INSTRUCTIONS = [
    ("punctuation:no_comma", {}),
    ("change_case:english_lowercase", {}),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}),
    ("keywords:forbidden_words", {"forbidden_words": ["bird", "tree"]}),
    ("detectable_format:title", {}),
]
IFEVAL = [
    {
        "key": i,
        "prompt": f"Write a sentence about birds, number {i}.",
        "instruction_id_list": [INSTRUCTIONS[i % 5][0], INSTRUCTIONS[3 * i % 5][0]],
        "kwargs": [INSTRUCTIONS[i % 5][1], INSTRUCTIONS[3 * i % 5][1]],
    }
    for i in range(10)
]
MATH = [
    {
        "problem": f"What is ${i} + {i}$?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": f"We add and get $\\boxed{{{2 * i}}}$.",
    }
    for i in range(10)
]


def test_ifeval_and_minerva_math_as_on_the_command_line(folder, tmp_path, monkeypatch):
    for package in ("langdetect", "immutabledict", "math_verify", "antlr4"):
        pytest.importorskip(package, reason="pip install 'lm_eval[ifeval,math]'")
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "wheels"))
    _, source = wheel(tmp_path / "wheels", ifeval=IFEVAL, algebra=MATH)
    more = {"generation_kwargs": {"max_gen_toks": 24}}
    tasks = {
        "ifeval": {
            "metric": "prompt_level_loose_acc",
            "num_fewshot": 0,
            "files": {"train": "some/ifeval.arrow"},
        },
        "minerva_math_algebra": {
            "metric": "math_verify",
            "num_fewshot": 4,
            "files": {"test": "some/algebra.arrow"},
        },
    }
    spec = {"source": source, "tasks": {task: entry | more for task, entry in tasks.items()}}
    model = folder / "wide"
    pico.llama(model, initializer_range=0.5, dtype=torch.float32, max_position_embeddings=8192)
    suites.fetch_suite("hard", spec, tmp_path / "hard/suite")
    prompts.tokenize(model, tmp_path / "hard/suite", tmp_path / "hard/prompts")
    scores, items = score(tmp_path, "hard", model)
    (tmp_path / "model").symlink_to(model)
    results, samples = command_line(tmp_path, "hard", tmp_path / "lm-eval", list(tasks))
    rows = items.to_pylist()
    assert len(rows) == 20 and all(row["text"] for row in rows)
    for row in rows:
        sample = samples[row["task"]][row["doc"]]
        assert sample["resps"] == [[row["text"]]]
        assert sample[tasks[row["task"]]["metric"]] == row["correct"]
    for task, entry in tasks.items():
        assert scores["tasks"][task]["value"] == results[task][f"{entry['metric']},none"]
    assert 0 < scores["tasks"]["ifeval"]["value"] < 1


@pytest.fixture(scope="module")
def scored(folder):
    return {suite: score(folder, suite) for suite in ("mixed", "included", "texts")}


def test_the_same_texts_and_scores_as_lm_evals_command_line(folder, scored, tmp_path):
    scores, items = scored["mixed"]
    assert items.schema == OUTCOMES_WITH_TEXT and scores["generation_backend"] == "hf"
    results, samples = command_line(folder, "mixed", tmp_path, ["gsm8k", "piqa", "short"])
    metrics = {"gsm8k": ("exact_match", "flexible-extract"), "piqa": ("acc", "none")}
    metrics["short"] = ("exact_match", "none")
    for task, (metric, kept) in metrics.items():
        entry, key = scores["tasks"][task], f"{metric},{kept}"
        assert entry["value"] == results[task][key]
        assert entry["stderr"] == pytest.approx(results[task][f"{metric}_stderr,{kept}"])
        samples[task] = [sample for sample in samples[task] if sample["filter"] == kept]
    texts = 0
    for row in items.to_pylist():
        sample = samples[row["task"]][row["doc"]]
        assert sample["doc_id"] == row["doc"]
        assert sample[metrics[row["task"]][0]] == row["correct"]
        assert (row["text"] is None) == (row["task"] == "piqa")
        if row["text"] is not None:
            assert sample["resps"] == [[row["text"]]] and row["loglikelihoods"] == []
            texts += bool(row["text"])
    assert texts > 5
    # Multiple choice by shared prefixes, the rest not.
    tokens = {task: entry["tokens_run"] for task, entry in scores["tasks"].items()}
    assert tokens["piqa"] > 0 and tokens["gsm8k"] == tokens["short"] == 0


def test_task_files_of_ones_own(folder, scored, tmp_path):
    scores, items = scored["included"]
    results, samples = command_line(folder, "included", tmp_path, ["sums"])
    assert scores["tasks"]["sums"]["value"] == pytest.approx(results["sums"]["letters,none"])
    assert 0 < scores["tasks"]["sums"]["value"] < 1
    rows = items.to_pylist()
    assert [row["text"] for row in rows] == [s["resps"][0][0] for s in samples["sums"]]
    assert samples["sums"][1]["arguments"]["gen_args_0"]["arg_0"] == "Q: What is 1 and 1?"
    # The folder may be edited later: what was fetched stays what it was.
    assert (folder / "included/suite/own/own.py").read_text() == OWN_PYTHON
    task = yaml.safe_load((folder / "included/suite/tasks/sums.yaml").read_text())
    assert task["include"] == str(folder / "included/suite/own/sums.yaml")


def test_bits_a_byte_of_a_text_with_intervals_over_its_documents(folder, scored, tmp_path):
    scores, items = scored["texts"]
    results, samples = command_line(folder, "texts", tmp_path, ["own"])
    entry, theirs = scores["tasks"]["own"], results["own"]["bits_per_byte,none"]
    assert entry["metric"] == NEGATIVE_BITS and entry["value"] == pytest.approx(-theirs, rel=1e-6)
    assert entry["questions"] == 6 and scores["accuracy"] == entry["value"]
    rows = items.to_pylist()
    lls, size = np.array([s["bits_per_byte"] for s in samples["own"]]).T
    assert [row["loglikelihoods"][0] for row in rows] == pytest.approx(lls.tolist(), abs=1e-3)
    # The spread over documents is that of the ratio of sums, by the jackknife.
    left = -(lls.sum() - lls) / (size.sum() - size) / math.log(2)
    jackknife = np.sqrt(5 * np.var(left))
    assert entry["stderr"] == pytest.approx(jackknife, rel=0.25)
    pq.write_table(items, tmp_path / "own.items.parquet")
    outcomes = read_outcomes([tmp_path / "own.items.parquet"])
    assert outcomes.sums().sum(1)[0] == pytest.approx(-theirs, rel=1e-6)


@pytest.mark.parametrize("suite", ["mixed", "included", "texts"])
def test_an_export_is_what_the_command_line_writes(folder, scored, suite, tmp_path):
    scores, items = scored[suite]
    write_json(tmp_path / f"{suite}.json", {"suite": suite} | scores)
    pq.write_table(items, tmp_path / f"{suite}.items.parquet")
    export(tmp_path / f"{suite}.json", folder / suite / "suite", tmp_path / "out")
    leaves = list(scores["tasks"])
    for task, samples in read(tmp_path / "out", leaves)[1].items():
        asked = [row for row in items.to_pylist() if row["task"] == task]
        assert {s["doc_id"] for s in samples} == {row["doc"] for row in asked}
        if asked[0]["text"] is not None:
            texts = {s["doc_id"]: s["resps"][0][0] for s in samples}
            assert [texts[row["doc"]] for row in asked] == [row["text"] for row in asked]


def test_a_run_goes_on_behind_the_finished_tasks(folder, scored, tmp_path, monkeypatch, capsys):
    from lm_eval.models.huggingface import HFLM

    asked: list[int] = []
    generate = HFLM.generate_until

    def dies_at_the_second(self, requests, **more):
        asked.append(len(requests))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return generate(self, requests, **more)

    monkeypatch.setattr(HFLM, "generate_until", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        score(folder, "mixed", resume=tmp_path / "tasks")
    kept = {path.stem for path in (tmp_path / "tasks").glob("*.parquet")}
    assert kept == {"piqa", "gsm8k"}
    capsys.readouterr()
    _, items = score(folder, "mixed", resume=tmp_path / "tasks")
    said = capsys.readouterr().out
    assert "piqa: kept" in said and "gsm8k: kept" in said and "short (3 of 3)" in said
    assert len(asked) == 3
    assert items.equals(scored["mixed"][1])
    # Another backend for generation is another setting.
    score(folder, "mixed", resume=tmp_path / "tasks", generation_backend="dummy")
    assert "kept" not in capsys.readouterr().out


def test_another_backend_generates(folder):
    scores, items = score(folder, "mixed", generation_backend="dummy")
    assert scores["generation_backend"] == "dummy"
    assert {row["text"] for row in items.to_pylist() if row["task"] == "gsm8k"} == {"lol"}
    with pytest.raises(WildmergeError, match=r"Expected vlm to be a backend.*`generation_backend`"):
        score(folder, "mixed", generation_backend="vlm")


def test_an_answer_longer_than_the_window_is_refused(folder, tmp_path):
    task = {"metric": "exact_match", "file": str(folder / "sums.jsonl")}
    spec = {"tasks": {"long": task | {"generation_kwargs": {"max_gen_toks": 512}}}}
    suites.fetch_suite("long", spec, tmp_path / "long/suite")
    prompts.tokenize(folder / "model", tmp_path / "long/suite", tmp_path / "long/prompts")
    with pytest.raises(
        WildmergeError, match=r"may have 512 tokens and .* input has 512\. Say less"
    ):
        score(tmp_path, "long", folder / "model")


def test_weights_that_overflow_and_weights_that_are_no_numbers(folder, tmp_path):
    for name, value in (("large", 3e38), ("nan", math.nan)):
        pico.llama(tmp_path / name, initializer_range=0.5, dtype=torch.float32)
        weights = load_file(tmp_path / name / "model.safetensors")
        weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], value)
        save_file(weights, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    for suite in ("mixed", "texts"):
        scores, _ = score(folder, suite, tmp_path / "large")
        worst = -8 if suite == "texts" else 0
        assert {entry["value"] for entry in scores["tasks"].values()} == {worst}
        assert all(entry["diverged"] for entry in scores["tasks"].values())
        with pytest.raises(WildmergeError, match=r"weights .*numbers, but .*norm"):
            score(folder, suite, tmp_path / "nan")
