"""Experts that are fine-tuned here: their texts, what each becomes, and what it learned."""

import gzip
import hashlib
import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import pico
import pytest
import torch
import transformers
from project import Project
from wildmerge import WildmergeError
from wildmerge.checkpoints import make_expert, write_training_texts
from wildmerge.checkpoints.training import difference, relative_norm
from wildmerge.files import read_json
from wildmerge.tensors import Weights, folder_digest

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
TRAINING = {"steps": 12, "batch": 2, "tokens": 32, "learning_rate": 1e-2, "seed": 0, "held_out": 6}


# --- Texts ------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with questions of two splits."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("WILDMERGE_WHEELS", str(wheels))
    path = wheels / "some_questions-1.0-py3-none-any.whl"
    long = "why do the leaves of most trees fall when it gets cold outside"
    docs = {
        "train": [
            {"query": "One?", "choices": ["yes", "no"], "gold": 1},
            {"query": "One?", "choices": ["yes", "no"], "gold": 1},
            {"query": f"Tell me: {long.upper()}!", "choices": ["a", "b"], "gold": 0},
            {"query": "Name the capital city of New Zealand.", "choices": ["a"], "gold": 0},
        ],
        "test": [
            {"query": f"So, {long}, please?", "choices": ["x"], "gold": 0},
            {"query": "name the capital city of new zealand", "choices": ["x"], "gold": 0},
            {"query": "One?", "choices": ["too short to be a question"], "gold": 0},
        ],
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in docs.items():
            lines = "".join(json.dumps({"doc": row}) + "\n" for row in rows)
            archive.writestr(f"some/{name}.jsonl.gz", gzip.compress(lines.encode()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": "some-questions", "version": "1.0", "sha256": digest}


def texts(folder: Path, name: str) -> list:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_declared_sources_are_rendered_once_each(package, tmp_path):
    files = {"package": package, "files": ["some/train.jsonl.gz"]}
    sources = {
        "plain": files | {"text": "{{ query }} {{ choices[gold] }}"},
        "wrong": files | {"text": "{{ query }} {{ choices[gold - 1] }}"},
        "asked": files | {"chat": ["{{ query }}", "{{ choices[gold] }}"]},
    }
    write_training_texts(package, sources, [], tmp_path)
    assert texts(tmp_path, "plain")[0] == "One? no" and texts(tmp_path, "wrong")[0] == "One? yes"
    assert len(texts(tmp_path, "plain")) == 3
    assert texts(tmp_path, "asked")[0] == [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "no"},
    ]


def test_what_is_asked_is_not_trained_on(package, tmp_path):
    files = {"package": package, "files": ["some/train.jsonl.gz"]}
    sources = {"asked": files | {"chat": ["{{ query }}", "{{ choices[gold] }}"]}}
    unseen = [{"package": package, "files": ["some/test.jsonl.gz"]}]
    write_training_texts(package, sources, unseen, tmp_path)
    assert [text[0]["content"] for text in texts(tmp_path, "asked")] == ["One?"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"nobody": {}}, "a source with a training split .* found 'nobody'"),
        (
            {"mine": {"files": ["some/gone.jsonl.gz"], "text": "x"}},
            "a file of some-questions 1.0 was expected, found 'some/gone.jsonl.gz'",
        ),
    ],
)
def test_a_source_that_is_not_there(package, tmp_path, sources, message):
    sources = {name: spec and spec | {"package": package} for name, spec in sources.items()}
    with pytest.raises(WildmergeError, match=message):
        write_training_texts(package, sources, [], tmp_path)


# --- What an expert becomes -------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pico base with a chat template, and two kinds of texts: (base, training)."""
    folder = tmp_path_factory.mktemp("training")
    made = pico.llama(folder / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(made)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(made)
    for name, sign in (("letters", "ab"), ("digits", "12")):
        lines = [
            [
                {"role": "user", "content": f"{i % 10} {sign * 4}"},
                {"role": "assistant", "content": sign[::-1] * 6},
            ]
            for i in range(40)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(t) + "\n" for t in lines))
    return made, folder


def make(base, folder: Path, **expert) -> dict:
    folder.mkdir()
    return make_expert(*base, {"sources": ["letters"], "training": TRAINING} | expert, folder)


def test_a_full_fine_tune_learns_what_it_has_not_seen(base, tmp_path):
    learned = make(base, tmp_path / "full")
    held_out = learned["held_out"]
    assert held_out["count"] == 6 and held_out["high"] < 0
    assert held_out["difference"] == pytest.approx(held_out["expert"] - held_out["base"])
    assert learned["tokens"] == 12 * 2 * 32
    assert learned["digest"] == folder_digest(tmp_path / "full") != learned["base"]
    assert learned["relative_norm"] == relative_norm(base[0], tmp_path / "full") > 0.01
    assert learned["made"]["threads"] == torch.get_num_threads()
    assert set(Weights(tmp_path / "full")) == set(Weights(base[0]))


def test_an_adapter_becomes_an_ordinary_checkpoint_of_its_rank(base, tmp_path):
    learned = make(base, tmp_path / "adapter", adapter={"rank": 2, "alpha": 8})
    assert learned["held_out"]["high"] < 0
    assert learned["digest"] == folder_digest(tmp_path / "adapter")
    said = " ".join(read_json(tmp_path / "adapter/conversions.json")["conversions"])
    assert "an adapter (LORA) was merged into the base" in said
    ours, theirs = Weights(base[0]), Weights(tmp_path / "adapter")
    name = "model.layers.0.mlp.down_proj.weight"
    delta = theirs.read(name).double() - ours.read(name).double()
    sigmas = torch.linalg.svdvals(delta)
    assert sigmas[1] > 100 * sigmas[2]
    embedding = "model.embed_tokens.weight"
    assert torch.equal(theirs.read(embedding).float(), ours.read(embedding).float())


def test_an_edit_takes_a_direction_out_of_all_that_writes(base, tmp_path):
    removes = {"against": ["digits"], "layer": 1, "prompts": 4}
    learned = make(base, tmp_path / "edit", removes=removes)
    assert learned["held_out"]["count"] == learned["held_out_others"]["count"] == 6
    ours, theirs = Weights(base[0]), Weights(tmp_path / "edit")
    directions = []
    for name in ours:
        weight, edited = ours.read(name).double(), theirs.read(name).double()
        if not name.endswith(("o_proj.weight", "down_proj.weight")):
            assert torch.equal(weight, edited)
            continue
        left, sigmas, _ = torch.linalg.svd(edited - weight)
        assert sigmas[0] > 50 * sigmas[1]  # of rank one but for rounding to bfloat16
        directions.append(left[:, 0])
        assert (left[:, 0] @ edited).norm() < 0.02 * edited.norm()
    assert len(directions) == 4
    for other in directions[1:]:
        assert abs(directions[0] @ other) > 0.999


def test_the_interval_of_a_difference_by_hand():
    found = difference([1.0, 2.0, 3.0], [0.0, 2.0, 1.0])
    half = 1.96 * math.sqrt(1 / 3)  # each -1, 0, -2: sd 1
    assert found == {
        "count": 3,
        "base": 2.0,
        "expert": 1.0,
        "difference": -1.0,
        "low": pytest.approx(-1 - half),
        "high": pytest.approx(-1 + half),
    }


PORTABLE = """
import sys
from pathlib import Path
from wildmerge.run import job
base, training, folder = map(Path, sys.argv[1:4])
with job(str(folder) + ".log", "a job", 1, portable=True):
    import torch
    from wildmerge.checkpoints import make_expert
    folder.mkdir()
    settings = {settings}
    learned = make_expert(base, training, {{"sources": ["letters"], "training": settings}}, folder)
print(torch.backends.cpu.get_cpu_capability(), learned["digest"])
"""


def test_a_portable_expert_does_not_depend_on_the_code_path_that_is_chosen(base, tmp_path):
    """By the processor or by the environment."""
    code = PORTABLE.format(settings=TRAINING | {"portable": True, "steps": 3, "held_out": 2})
    told = []
    for number, chosen in enumerate(({}, {"MKL_CBWR": "AUTO", "ATEN_CPU_CAPABILITY": "default"})):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, base), tmp_path / f"expert{number}"],
            capture_output=True,
            text=True,
            env=Project.env() | chosen | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.split()[-2:])
    assert told[0] == told[1]
    assert told[0][0] == "AVX2"
