"""A server of hub repositories written by others: `olah` 0.5.4, over git repositories on this disk.

It needs a Python of its own: name its program in the environment variable WILDMERGE_OLAH, as after
`python -m venv V; V/bin/pip install olah==0.5.4; export WILDMERGE_OLAH=V/bin/olah-cli`.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import hub as hubs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from project import EXPERTS, STUDY, make_project, models_sheet
from wildmerge.cli import lock as lock_command
from wildmerge.files import read_json

OLAH = os.environ.get("WILDMERGE_OLAH") or shutil.which("olah-cli")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OLAH, reason="WILDMERGE_OLAH names no program olah-cli"),
]
PIQA = [
    {"goal": f"Question {i}?", "sol1": f"yes {i}", "sol2": f"no {i}", "label": i % 2}
    for i in range(9)
]
SCORES = "results/scores/pico/n02-01/task_arithmetic/few.json"


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=who", "-c", "user.email=who@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def as_git(files: dict[str, bytes], folder: Path) -> None:
    """Commit files to a git repository, the large ones as git-lfs keeps them."""
    folder.mkdir(parents=True)
    git(folder, "init", "--initial-branch=main")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(hubs.LARGE):
            oid = hashlib.sha256(content).hexdigest()
            kept = folder / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(content)
            spec = "version https://git-lfs.github.com/spec/v1"
            content = f"{spec}\noid sha256:{oid}\nsize {len(content)}\n".encode()
        path.write_bytes(content)
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--message", "as it is")


@contextmanager
def olah(folder: Path, repositories: dict[str, dict[str, bytes]]):
    """Run olah over git repositories that it makes; gives its address."""
    for name, files in repositories.items():
        kind = "" if name.startswith("datasets/") else "models/"
        as_git(files, folder / "git" / (kind + name))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "olah.toml").write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{folder}/cache"\n'
        f'mirrors-path = ["{folder}/git"]\n[accessibility]\noffline = true\n'
    )
    with (folder / "olah.log").open("w") as log:
        command = [str(OLAH), "--config", folder / "olah.toml", "--log-path", folder / "log"]
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            for _ in range(300):
                with socket.socket() as line:
                    if line.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, (folder / "olah.log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def study_from(url: str, project, monkeypatch) -> dict:
    """Lock, preflight, downloads, questions, a merge and its scores, all from one server."""
    monkeypatch.setenv("HF_ENDPOINT", url)
    rows = [{"base": "pico", "model": "base", "repo": "who/base", "gb": "0.01"}]
    rows += [
        {"base": "pico", "model": n, "repo": f"who/{n}", "pool": "wild", "domain": "noise"}
        for n in EXPERTS
    ]
    project.write("config/models.tsv", models_sheet(rows))
    tasks = {"piqa": {"metric": "acc", "num_fewshot": 0, "questions": 6}}
    suite = {"description": "From the hub.", "source": "hub", "dtype": "float32", "tasks": tasks}
    project.write("config/suites.yaml", {"few": suite})
    project.write("config/studies/pico.yaml", STUDY | {"recipes": ["task_arithmetic"]})
    assert lock_command.update(project.folder / "config") == 0
    preflight = "results/studies/pico/preflight.json"
    project.snakemake(preflight, SCORES, *(f"resources/checkpoints/pico/{n}" for n in EXPERTS))
    folder = project.folder
    locks = [read_json(folder / f"config/{kind}.lock.json") for kind in ("models", "datasets")]
    checkpoints = [path for path in (folder / "resources/checkpoints").rglob("*") if path.is_file()]
    summary = read_json(folder / "results/merges/pico/n02-01/task_arithmetic/summary.json")
    scores = read_json(folder / SCORES)["tasks"]["piqa"]
    return {
        "locked": [{name: entry["files"] for name, entry in lock.items()} for lock in locks],
        "judged": [row["verdict"] for row in read_json(folder / preflight)],
        "checkpoints": {str(p.relative_to(folder)): p.read_bytes() for p in checkpoints},
        "questions": read_json(folder / "resources/suites/few/suite.json")["digest"],
        "merge": {key: summary[key] for key in summary if "digest" in key},
        "scores": {key: scores[key] for key in ("value", "stderr", "questions", "metric")},
    }


def test_a_study_is_the_same_from_another_server(pico_family, tmp_path, monkeypatch):
    base, experts = pico_family
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(PIQA), sink)
    parquet = sink.getvalue().to_pybytes()
    splits = {f"data/{split}-00000-of-00001.parquet": parquet for split in ("train", "validation")}
    card = b"---\nlicense: apache-2.0\n---\n"
    repositories = {f"who/{n}": hubs.from_folder(f) for n, f in {"base": base, **experts}.items()}
    repositories["datasets/baber/piqa"] = {"README.md": card, **splits}

    with hubs.serve() as ours:
        for name, files in repositories.items():
            ours.repositories[name] = hubs.Repository(files)
        project = make_project(tmp_path / "ours", base, experts)
        expected = study_from(ours.url, project, monkeypatch)
    with olah(tmp_path, repositories) as url:
        project = make_project(tmp_path / "theirs", base, experts)
        found = study_from(url, project, monkeypatch)
    assert expected["merge"]
    assert found == expected
