"""From the hub to the gate through the workflow's own rules, against a hub on this machine."""

import csv
import json

import hub as hubs
import numpy as np
import pico
import pytest
from project import EXPERTS, ROOT, STUDY, make_project, models_sheet
from wildmerge.cli import lock as lock_command

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch):
    with hubs.serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture
def hub_project(server, pico_family, tmp_path):
    """The pico study with its checkpoints on the hub: a gated base, one expert without tokenizer,
    one that is gone, and no lock yet."""
    base, experts = pico_family
    project = make_project(tmp_path / "project", base, experts)
    for name, folder in {"base": base, **experts}.items():
        server.repositories[f"who/{name}"] = hubs.Repository(hubs.from_folder(folder))
    server.repositories["who/base"].gated = True
    del server.repositories["who/ann"].files["tokenizer.json"]
    del server.repositories["who/dan"]
    project.write("config/models.tsv", sheet(admit={}))
    project.write("config/studies/pico.yaml", STUDY | {"figures": ["cosines", "signs"]})
    return project


def sheet(admit: dict[str, str]) -> str:
    rows = [{"base": "pico", "model": "base", "repo": "who/base", "gb": "0.01"}]
    rows += [
        {"base": "pico", "model": name, "repo": f"who/{name}", "pool": "wild", "domain": "noise"}
        | {"admit": admit.get(name, "")}
        for name in EXPERTS
    ]
    return models_sheet(rows)


def test_from_preflight_to_gate(hub_project, server, pico_family, monkeypatch):
    preflight = "results/studies/pico/preflight.json"
    done = hub_project.snakemake(preflight, check=False)
    said = done.stdout + done.stderr
    assert done.returncode and "5 rows, 5 unusable" not in said
    assert "pico/base  " in said and "Accept its terms" in said

    monkeypatch.setenv("HF_TOKEN", "good")
    done = hub_project.snakemake(preflight, check=False)
    said = done.stdout + done.stderr
    assert done.returncode and "5 rows, 2 unusable" in said
    assert "pico/ann, pico/dan" in said and "without a tokenizer" in said
    assert "does not exist" in said and "good" not in said

    # Nothing is downloaded before it is locked; a dry run is not stopped by that.
    assert hub_project.jobs("pico")["download"] == 5
    done = hub_project.snakemake("resources/checkpoints/pico/bob", check=False)
    said = done.stdout + done.stderr
    assert (
        done.returncode
        and "found pico/base, pico/bob: no revision yet" in said
        and "make lock" in said
    )
    assert not (hub_project.folder / "logs/download").exists()
    assert lock_command.update(hub_project.folder / "config") == 1
    dan = pico_family[1]["dan"]
    server.repositories["who/dan"] = hubs.Repository(hubs.from_folder(dan))
    assert lock_command.update(hub_project.folder / "config") == 0

    checkpoints = "results/studies/pico/checkpoints.csv"
    done = hub_project.snakemake("--keep-going", checkpoints, check=False)
    assert done.returncode and "pico/ann" in done.stdout + done.stderr
    hub_project.write("config/models.tsv", sheet(admit={"ann": "its tokens are the base's"}))
    similarity = "results/task_vectors/pico/similarity.npz"
    gate = "results/admitted/pico/ann.json"
    jobs = hub_project.jobs(preflight, checkpoints, similarity, gate)
    assert "download" not in jobs and "task_vector" not in jobs
    hub_project.snakemake(preflight, checkpoints, similarity, gate)
    rows = list(csv.DictReader((hub_project.folder / checkpoints).open()))
    assert [row["model"] for row in rows] == EXPERTS
    assert [bool(row["found"]) for row in rows] == [True, False, False, False]
    verdict = json.loads((hub_project.folder / gate).read_text())
    assert verdict["admitted_because"] == "its tokens are the base's"
    assert np.load(hub_project.folder / similarity)["models"].tolist() == EXPERTS


def test_questions_that_are_not_locked_are_refused_before_the_first_job(hub_project):
    tasks = {"piqa": {"metric": "acc", "num_fewshot": 0}}
    suite = {"description": "From the hub.", "source": "hub", "dtype": "float32", "tasks": tasks}
    hub_project.write("config/suites.yaml", {"few": suite})
    assert hub_project.jobs("resources/suites/few")["fetch_suite"] == 1
    done = hub_project.snakemake("resources/suites/few", check=False)
    said = done.stdout + done.stderr
    assert done.returncode and "found none for those of suite few" in said and "make lock" in said
    assert not (hub_project.folder / "logs/fetch_suite").exists()


def test_the_projects_own_sheet_is_locked_row_by_row(server, tmp_path):
    """`make lock` on the 62 hub rows of the study, none of which this hub has but two."""
    (tmp_path / "models.tsv").write_text((ROOT / "config/models.tsv").read_text())
    files = hubs.from_folder(pico.qwen3(tmp_path / "pico"))
    for name in ("Qwen/Qwen3-4B", "Menlo/Jan-nano"):
        server.repositories[name] = hubs.Repository(files)
    assert lock_command.update(tmp_path) == 1
    assert list(json.loads((tmp_path / "models.lock.json").read_text())) == [
        "Menlo/Jan-nano",
        "Qwen/Qwen3-4B",
    ]
