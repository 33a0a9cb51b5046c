"""Chat templates, a system instruction, examples as turns, as lm-eval's command line has them."""

import json
import os
import subprocess
import sys

import pico
import pytest
import torch
import transformers
import yaml
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.evaluation import export, prompts, suites
from wildmerge.evaluation.scoring import evaluate
from wildmerge.files import read_json, write_json
from wildmerge.validation import validate

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/suites.schema.yaml").read_text())
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
QUESTIONS = [
    {"question": f"Is {i} odd?", "choices": ["yes", "no"], "answer": i % 2} for i in range(4)
]
SYSTEM = "You count well."


def model_of(folder, template):
    pico.llama(folder, initializer_range=0.5, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def spec_of(folder, **chat):
    file = {"file": str(folder / "own.jsonl"), "examples": str(folder / "shots.jsonl")}
    tasks = {
        "choices": file | {"metric": "acc", "num_fewshot": 2},
        "words": file | {"metric": "exact_match", "num_fewshot": 1},
    }
    spec = {"description": "Chat.", "dtype": "float32", "tasks": tasks} | chat
    validate({"chat": spec}, SCHEMA, "suites.yaml")
    return spec


CHAT = {"chat_template": True, "system_instruction": SYSTEM}
TURNS = CHAT | {"fewshot_as_multiturn": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pico model with a chat template, and questions as a chat in two ways."""
    folder = tmp_path_factory.mktemp("chat")
    model_of(folder / "model", TEMPLATE)
    lines = [json.dumps(row) + "\n" for row in QUESTIONS]
    (folder / "own.jsonl").write_text("".join(lines))
    (folder / "shots.jsonl").write_text("".join(reversed(lines)))
    for name, chat in {"chat": CHAT, "turns": TURNS, "plain": {}}.items():
        suites.fetch_suite(name, spec_of(folder, **chat), folder / name / "suite")
        prompts.tokenize(folder / "model", folder / name / "suite", folder / name / "prompts")
    return folder


def score(folder, name, model=None):
    home = folder / name
    return evaluate(
        model or folder / "model", home / "suite", home / "prompts", dtype="float32", device="cpu"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chat", ["--fewshot_as_multiturn", "true"]),
        ("turns", ["--fewshot_as_multiturn", "false"]),
    ],
)
def test_prompts_and_scores_are_those_of_the_command_line(folder, name, words, tmp_path):
    # fmt: off
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", "choices", "words",
        "--model_args", f"pretrained={folder / 'model'},dtype=float32", "--device", "cpu",
        "--batch_size", "16", "--include_path", str(folder / name / "suite/tasks"),
        "--log_samples", "--output_path", str(tmp_path), "--apply_chat_template",
        "--system_instruction", SYSTEM, *words,
    ]
    # fmt: on
    env = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    scores, items = score(folder, name)
    assert scores["chat"] == read_json(folder / name / "suite/suite.json")["chat"]
    rows = items.to_pylist()
    for task in ("choices", "words"):
        (file,) = tmp_path.glob(f"**/samples_{task}_*.jsonl")
        samples = [json.loads(line) for line in file.read_text().splitlines()]
        for row, sample in zip((r for r in rows if r["task"] == task), samples, strict=True):
            prompt = sample["arguments"]["gen_args_0"]["arg_0"]
            assert prompt.startswith(f"<system>{SYSTEM}</system><user>")
            turns = {"choices": 2, "words": 1}[task] if name == "chat" else 0
            assert prompt.count("</assistant>") == turns
            if task == "words":
                assert sample["resps"] == [[row["text"]]]
                assert sample["exact_match"] == row["correct"]
            else:
                lls = [float(response[0][0]) for response in sample["resps"]]
                assert lls == pytest.approx(row["loglikelihoods"], abs=1e-4)
                assert sample["acc"] == row["correct"]


def test_each_model_has_its_own_template_and_one_without_is_refused(folder, tmp_path, capsys):
    other = model_of(tmp_path / "other", TEMPLATE.replace("<", "["))
    before = score(folder, "chat")[1]["loglikelihoods"]
    capsys.readouterr()
    after = score(folder, "chat", other)[1]["loglikelihoods"]
    assert "tokenizer of its own" in capsys.readouterr().out and before != after
    # Without the keys a template changes nothing.
    score(folder, "plain", other)
    assert "tokenizer of its own" not in capsys.readouterr().out
    none = model_of(tmp_path / "none", None)
    with pytest.raises(WildmergeError, match=r"to have a chat template.*chat_template wants"):
        score(folder, "chat", none)
    with pytest.raises(WildmergeError, match="to have a chat template"):
        prompts.tokenize(none, folder / "chat/suite", tmp_path / "prompts")


def test_the_digest_knows_the_chat_and_a_suite_without_has_none(folder):
    of = {
        name: read_json(folder / name / "suite/suite.json") for name in ("chat", "turns", "plain")
    }
    assert len({suite["digest"] for suite in of.values()}) == 3
    assert of["chat"]["chat"] == CHAT and "chat" not in of["plain"]


def test_a_chat_is_not_exported(folder, tmp_path):
    scores, _ = score(folder, "chat")
    write_json(tmp_path / "chat.json", scores)
    with pytest.raises(
        WildmergeError, match=r"has chat_template, system_instruction\. Run lm-eval"
    ):
        export(tmp_path / "chat.json", folder / "chat/suite", tmp_path / "out")


def test_turns_without_a_chat_are_refused(folder):
    with pytest.raises(WildmergeError, match="chat_template"):
        spec_of(folder, fewshot_as_multiturn=True)
