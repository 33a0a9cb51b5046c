"""Questions of one's own as tasks of lm-eval: fetched, rendered, scored as lm-eval scores them."""

import json

import pico
import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.evaluation import prompts, suites
from wildmerge.evaluation.scoring import evaluate
from wildmerge.files import read_json
from wildmerge.validation import validate

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/suites.schema.yaml").read_text())
QUESTIONS = [
    {
        "question": f"What is {i} and {i}?",
        "choices": [f"{i + j}!" for j in range(2 + i % 3)],
        "answer": f"{i}!",
        "hint": f"It is {i}.",
    }
    for i in range(6)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pico model, a JSONL of questions and a CSV of the same."""
    folder = tmp_path_factory.mktemp("own")
    pico.llama(folder / "model", initializer_range=0.5, dtype=torch.float32)
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    lines = ["question,a,b,right", *(f"What is {i}?,{i},{i + 10},A" for i in range(4))]
    (folder / "own.csv").write_text("\n".join(lines) + "\n")
    four = [
        {"question": f"{i}?", "choices": ["w", "x", "y", "z"], "answer": "ABCD"[i % 4]}
        for i in range(5)
    ]
    (folder / "four.jsonl").write_text("".join(json.dumps(row) + "\n" for row in four))
    return folder


def spec_of(**tasks):
    spec = {"description": "Own.", "dtype": "float32", "tasks": tasks}
    validate({"own": spec}, SCHEMA, "suites.yaml")
    return spec


def scored(folder, where, spec):
    """Scores and items of the workflow's own functions, and lm-eval's samples by hand."""
    suites.fetch_suite("own", spec, where / "suite")
    prompts.tokenize(folder / "model", where / "suite", where / "prompts")
    scores, items = evaluate(
        folder / "model", where / "suite", where / "prompts", dtype="float32", device="cpu"
    )
    manager = TaskManager(include_path=str(where / "suite/tasks"), include_defaults=False)
    results = simple_evaluate(
        "hf",
        {"pretrained": str(folder / "model"), "dtype": "float32"},
        tasks=list(spec["tasks"]),
        device="cpu",
        task_manager=manager,
        bootstrap_iters=0,
    )
    return scores, items.to_pylist(), results


def test_own_questions_are_scored_as_lm_eval_scores_them(folder, tmp_path):
    spec = spec_of(
        mine={"file": str(folder / "own.jsonl"), "metric": "acc_norm"},
        table={
            "file": str(folder / "own.csv"),
            "columns": {"choices": ["a", "b"], "answer": "right"},
            "metric": "acc",
            "questions": 3,
        },
        like_mmlu={
            "file": str(folder / "four.jsonl"),
            "examples": str(folder / "four.jsonl"),
            "columns": {"question": "question"},
            "template": "mmlu_anatomy",
            "num_fewshot": 2,
            "metric": "acc",
        },
        worded={
            "file": str(folder / "own.jsonl"),
            "template": {"doc_to_text": "{{hint}} {{question}}", "description": "Now:\n"},
            "metric": "acc",
        },
    )
    scores, items, results = scored(folder, tmp_path, spec)
    samples = results["samples"]
    assert {task: len(rows) for task, rows in samples.items()} == {
        "mine": 6,
        "table": 3,
        "like_mmlu": 5,
        "worded": 6,
    }
    for row in items:
        sample = samples[row["member"]][row["doc"]]
        assert sample[spec["tasks"][row["task"]]["metric"]] == row["correct"]
        lls = [response[0][0] for response in sample["resps"]]
        assert lls == pytest.approx(row["loglikelihoods"], abs=1e-4)
    prompt = {task: rows[0]["arguments"][0][0] for task, rows in samples.items()}
    assert prompt["mine"] == "Question: What is 0 and 0?\nAnswer:"
    assert prompt["worded"] == "Now:\nIt is 0. What is 0 and 0?"
    assert prompt["like_mmlu"].endswith("\n\n0?\nA. w\nB. x\nC. y\nD. z\nAnswer:")
    assert prompt["like_mmlu"].count("Answer:") == 3
    members = read_json(tmp_path / "suite/suite.json")["tasks"]
    assert members["like_mmlu"]["members"]["like_mmlu"]["template"] == "mmlu_anatomy"
    assert scores["tasks"]["table"]["questions"] == 3


def test_the_digest_follows_questions_and_template(folder, tmp_path):
    def digest(name, **task):
        wanted = {"file": str(folder / "own.jsonl"), "metric": "acc"} | task
        suites.fetch_suite("own", spec_of(mine=wanted), tmp_path / name)
        return read_json(tmp_path / name / "suite.json")["digest"]

    first = digest("a")
    assert digest("b") == first
    assert digest("c", template={"doc_to_text": "{{question}}?"}) != first
    assert digest("d", questions=5) != first


def test_a_template_that_reads_another_column(folder, tmp_path):
    wanted = {"file": str(folder / "own.jsonl"), "metric": "acc"}
    wanted |= {"template": {"doc_to_text": "{{passage}} {{question}}"}}
    with pytest.raises(WildmergeError, match=r"has no passage; its columns are question, choices"):
        suites.fetch_suite("own", spec_of(mine=wanted), tmp_path / "suite")
    assert not (tmp_path / "suite").exists()
