"""Suites of one's own through the whole workflow: choices, generated answers, a text."""

import json

import pandas as pd
import pytest
from project import STUDY
from wildmerge.files import read_json

pytestmark = pytest.mark.slow


def test_own_questions_and_texts_to_a_report(project):
    rows = [
        {"question": f"Is {i} odd?", "choices": ["yes", "no"], "answer": i % 2} for i in range(12)
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (project.folder / "own.jsonl").write_text("".join(lines))
    text = "\n\n".join(f"The {i}th paragraph of a text about {i} things." for i in range(8))
    (project.folder / "own.txt").write_text(text)
    tasks = {
        "choices": {"file": "own.jsonl", "metric": "acc"},
        "answers": {"file": "own.jsonl", "metric": "exact_match"},
    }
    suites = {
        "own": {"description": "Mine.", "dtype": "float32", "tasks": tasks},
        "texts": {
            "description": "A text.",
            "dtype": "float32",
            "tasks": {"text": {"file": "own.txt", "metric": "bits_per_byte"}},
        },
    }
    project.write("config/suites.yaml", suites)
    figures = ["accuracy_by_n", "gain_by_merge", "task_gains"]
    more = {"sizes": [2], "recipes": ["ties"], "suites": ["own", "texts"], "figures": figures}
    project.write("config/studies/pico.yaml", STUDY | more)
    project.snakemake("pico")
    study = project.folder / "results/studies/pico"
    assert (study / "report.html").stat().st_size > 100_000
    scores = pd.read_csv(study / "scores.csv").set_index(["suite", "task"])
    assert set(scores.index) == {("own", "choices"), ("own", "answers"), ("texts", "text")}
    bits = scores.loc[("texts", "text")]
    assert (bits["metric"] == "negative_bits_per_byte").all() and (bits["value"] < -4).all()
    # A merge's gain in hundredths of a bit a byte has an interval over the documents.
    found = pd.read_csv(study / "comparisons.csv")
    found = found[(found["suite"] == "texts") & (found["recipe"] == "ties")]
    assert (found["low"] < found["gain"]).all() and (found["gain"] < found["high"]).all()
    assert project.jobs("pico") == {}
    # The question that changes is asked again, and nothing of the text.
    changed = json.dumps(rows[0] | {"question": "Is 7 odd?"}) + "\n"
    (project.folder / "own.jsonl").write_text("".join([changed, *lines[1:]]))
    jobs = project.jobs("pico")
    assert jobs["fetch_suite"] == 1 and jobs["tokenize"] == 1 and jobs["evaluate"] == 6
    assert "merge" in jobs  # its weights are not kept
    texts = read_json(project.folder / "resources/suites/texts/suite.json")
    assert texts["tasks"]["text"]["kind"] == "loglikelihood_rolling"
