"""A checkpoint that changes in its place: what is made again, refused, or left alone."""

import json
import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pico
import pytest
import yaml
from project import STUDY, Project, counts, make_project, wildmerge
from wildmerge.tensors import folder_digest

RESULTS = "results"
NAMES = ["ann", "bob", "cat"]
FEW = {
    "sizes": [2],
    "draws": 2,
    "prefix": "",
    "recipes": ["task_arithmetic"],
    "keep": True,
    "tables": [],
    "figures": [],
}


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    """A family of its own and a project over it whose study has been run: merges kept."""
    folder = tmp_path_factory.mktemp("changing")
    base = pico.llama(folder / "base")
    experts = {
        name: pico.expert(base, folder / name, seed=i, scale=0.3)
        for i, name in enumerate(NAMES, start=1)
    }
    project = make_project(folder / "project", base, experts)
    suites = yaml.safe_load((project.folder / "config/suites.yaml").read_text())
    suites["few"]["tasks"].pop("piqa")
    project.write("config/suites.yaml", suites)
    project.write("config/studies/pico.yaml", STUDY | FEW)
    project.snakemake("pico")
    return project


@pytest.fixture
def study(finished_once):
    """The same, with nothing left to do."""
    assert finished_once.jobs("pico") == {}
    yield finished_once
    finished_once.snakemake("pico")


def retrain(project: Project, name: str, seed: int) -> str:
    """Write other weights of the same size into a checkpoint's folder; give their digest."""
    family = project.folder.parent
    shutil.rmtree(family / name)
    pico.expert(family / "base", family / name, seed=seed, scale=0.3)
    return folder_digest(family / name)


def loaded(project: Project, pattern: str) -> dict[str, dict]:
    """The JSON files below results/ that a pattern finds, by their paths there."""
    results = project.folder / RESULTS
    found = {p.relative_to(results).as_posix(): p for p in results.glob(pattern)}
    return {name: json.loads(path.read_text()) for name, path in found.items()}


def summaries(project: Project) -> dict[str, dict]:
    return loaded(project, "merges/pico/*/*/summary.json")


def digests_of(project: Project, name: str) -> set[str]:
    """Every digest that results/ record for a checkpoint, that of its model cards included."""
    found = {s["inputs"][name] for s in summaries(project).values() if name in s["inputs"]}
    verdicts = loaded(project, f"task_vectors/pico/{name}.json")
    verdicts |= loaded(project, f"admitted/pico/{name}.json")
    found |= {verdict["digest"] for verdict in verdicts.values()}
    scores = loaded(project, f"scores/pico/{name}/identity/*.json")
    found |= {score["model_digest"] for score in scores.values()}
    assert len(verdicts) == 2 and scores
    for card in (project.folder / RESULTS).glob("studies/pico/kept/pico/*/*/README.md"):
        rows = [line for line in card.read_text().splitlines() if line.startswith(f"| {name} |")]
        found |= {row.rstrip(" |").rsplit(" ", 1)[-1] for row in rows}
    return found


def test_what_depends_on_a_retrained_folder_is_made_again(study):
    before = summaries(study)
    others = {path: s for path, s in before.items() if "ann" not in s["members"]}
    assert others and len(others) < len(before)
    after = retrain(study, "ann", seed=11)
    merges = len(before) - len(others)
    dry = study.snakemake("-n", "pico", "--quiet", "rules")
    assert "pico/ann" in dry.stderr and "holds other files" in dry.stderr
    assert counts(dry.stdout + dry.stderr) == {
        "download": 1,
        "task_vector": 1,
        "admit": 1,
        "families": 1,
        "merge": merges,
        "keep": merges,
        "evaluate": merges + 1,
        "compare": 1,
        "aggregate": 1,
        "report": 1,
        "pico": 1,
    }
    study.snakemake("pico")
    assert digests_of(study, "ann") == {after}
    now = summaries(study)
    assert {path: s for path, s in now.items() if "ann" not in s["members"]} == others
    for path in before.keys() - others.keys():
        assert now[path]["output_digest"] != before[path]["output_digest"]
    assert study.jobs("pico") == {}


def test_an_older_checkpoint_put_back_is_noticed(study):
    """Times that go backwards are a change, too."""
    folder = study.folder.parent / "bob"
    kept = shutil.copytree(folder, study.folder.parent / "kept-bob")
    old, new = folder_digest(folder), retrain(study, "bob", seed=12)
    study.snakemake("pico")
    assert digests_of(study, "bob") == {new}
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)  # with their times
    assert study.jobs("pico")["download"] == 1
    study.snakemake("pico")
    assert digests_of(study, "bob") == {old}


def test_another_config_in_a_folder_is_a_change(study):
    config = study.folder.parent / "bob" / "config.json"
    text = config.read_text()
    config.write_text(text.replace("}", " }", 1))
    jobs = study.jobs("pico")
    assert jobs["download"] == jobs["task_vector"] == 1
    config.write_text(text)
    assert study.jobs("pico") == {}


def test_a_folder_that_is_only_touched_makes_nothing_again(study):
    family = study.folder.parent
    for file in (family / "bob").iterdir():
        os.utime(file)
    shutil.copytree(family / "cat", family / "copy-of-cat", copy_function=shutil.copyfile)
    shutil.rmtree(family / "cat")
    (family / "copy-of-cat").rename(family / "cat")
    (family / "cat" / "trainer_state.json").write_text("{}")  # no part of the checkpoint
    dry = study.snakemake("-n", "pico", "--quiet", "rules")
    assert counts(dry.stdout + dry.stderr) == {} and "other files" not in dry.stderr
    study.snakemake("pico")
    assert digests_of(study, "cat") == {folder_digest(family / "cat")}


def test_a_folder_that_is_away_makes_nothing_again(study):
    away = (study.folder.parent / "bob").rename(study.folder.parent / "away")
    try:
        assert study.jobs("pico") == {}
    finally:
        away.rename(study.folder.parent / "bob")


def merge_of(project: Project, name: str) -> tuple[str, dict]:
    """The folder and the summary of a merge with a checkpoint in it."""
    return next(
        (str(Path(path).parent), summary)
        for path, summary in summaries(project).items()
        if name in summary["members"]
    )


def test_weights_that_change_between_verdict_and_merge_are_refused(study):
    """By hand, in the folder that the workflow made, which no plan looks into."""
    merge, summary = merge_of(study, "cat")
    weights = study.folder / "resources/checkpoints/pico/cat/model.safetensors"
    target = os.readlink(weights)
    weights.unlink()
    other = pico.expert(study.folder.parent / "base", study.folder.parent / "other", seed=21)
    shutil.copy(other / "model.safetensors", weights)
    shutil.rmtree(other)
    (study.folder / RESULTS / merge / "summary.json").unlink()
    done = study.snakemake("pico", check=False)
    try:
        assert done.returncode
        said = " ".join(done.stderr.split())
        assert f"should have the digest {summary['inputs']['cat']}" in said
        assert "delete resources/checkpoints/pico/cat" in said
        assert not list((study.folder / RESULTS / merge).glob("*summary.json*"))
        assert not list((study.folder / RESULTS / merge).glob("*model*"))
        # Its own score is of other weights, then, and no table has both.
        score = study.folder / RESULTS / "scores/pico/cat/identity/few.json"
        score.unlink()
        study.snakemake("pico", check=False)
        assert json.loads(score.read_text())["model_digest"] != summary["inputs"]["cat"]
    finally:
        weights.unlink()
        weights.symlink_to(target)


def test_scores_of_other_weights_than_the_merges_are_in_no_table(study):
    """A hand that changes weights after every merge, and asks for the checkpoint's score anew."""
    weights = study.folder / "resources/checkpoints/pico/cat/model.safetensors"
    target = os.readlink(weights)
    weights.unlink()
    other = pico.expert(study.folder.parent / "base", study.folder.parent / "other", seed=22)
    shutil.copy(other / "model.safetensors", weights)
    shutil.rmtree(other)
    score = study.folder / RESULTS / "scores/pico/cat/identity/few.json"
    score.unlink()
    try:
        done = study.snakemake("pico", check=False)
        said = " ".join(done.stderr.split())
        assert done.returncode
        for what in ("aggregate pico", "compare pico"):
            assert f"{what}: The same weights were expected under the name pico/cat" in said
    finally:
        weights.unlink()
        weights.symlink_to(target)
        score.unlink()


def test_a_folder_that_changes_while_its_study_runs_is_refused_then_made_again(study):
    """Retrained once its verdict stands: as at a run that goes on for days."""
    merge, summary = merge_of(study, "cat")
    study.snakemake("pico", "--forcerun", "admit", "--until", "admit")
    after = retrain(study, "cat", seed=31)
    # What the run had planned before the change: this merge, on the verdict that stands.
    target = f"{RESULTS}/{merge}/summary.json"
    done = study.snakemake(target, "--rerun-triggers", "mtime", "--forcerun", "merge", check=False)
    said = " ".join(done.stderr.split())
    assert done.returncode and f"should have the digest {summary['inputs']['dan']}" in said
    study.snakemake("pico")
    assert digests_of(study, "cat") == {after}
    frame = pd.read_csv(study.folder / RESULTS / "studies/pico/merges.csv")
    assert frame["accuracy"].notna().all()


def test_a_retrained_base_makes_its_family_again(study):
    family = study.folder.parent
    shutil.rmtree(family / "base")
    pico.llama(family / "base", seed=5)
    jobs = study.jobs("pico")
    assert jobs["download"] == jobs["evaluate"] - len(summaries(study)) == len(NAMES) + 1
    assert jobs["merge"] == jobs["keep"] == len(summaries(study))
    shutil.rmtree(family / "base")
    pico.llama(family / "base")
    assert study.jobs("pico") == {}


def test_two_models_are_compared_by_the_command_as_before(study):
    merge, _ = merge_of(study, "ann")
    scores = Path(merge.replace("merges", "scores"))
    files = [scores / "few.items.parquet", Path("scores/pico/ann/identity/few.items.parquet")]
    folder = study.folder / RESULTS
    assert "arc_easy" in wildmerge("compare", *[folder / f for f in files], cwd=folder).stdout


def test_the_first_look_reads_no_weights(study, tmp_path):
    """Planning takes the names, sizes and times of files alone, while these tell nothing new."""
    began = time.process_time()
    hidden = study.folder / "resources/checkpoints/pico/.ann.source.json"
    record = json.loads(hidden.read_text())
    record["files"]["model.safetensors"][-1] = "0" * 64  # would differ if it were read
    hidden.write_text(json.dumps(record))
    assert study.jobs("pico") == {} and time.process_time() >= began
