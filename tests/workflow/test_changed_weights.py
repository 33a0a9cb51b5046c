"""A checkpoint that changes in its place: what is made again, refused, or left alone."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pico
import pytest
import yaml
from project import STUDY, Project, counts, make_project, wildmerge
from wildmerge.tensors import folder_digest

NAMES = ["ann", "bob", "cat"]
FEW = {
    "sizes": [2],
    "draws": 2,
    "recipes": ["task_arithmetic"],
    "keep": True,
    "tables": [],
    "figures": [],
}
VERDICTS = [f"results/admitted/pico/{name}.json" for name in ("ann", "bob")]
MERGE = "results/merges/pico/n02-01/task_arithmetic"


def family_of(folder: Path) -> tuple[Path, dict[str, Path]]:
    base = pico.llama(folder / "base")
    experts = {
        name: pico.expert(base, folder / name, seed=i, scale=0.3)
        for i, name in enumerate(NAMES, start=1)
    }
    return base, experts


def project_over(folder: Path, **study) -> Project:
    """A project over a family of its own, which lies beside it."""
    project = make_project(folder / "project", *family_of(folder))
    suites = yaml.safe_load((project.folder / "config/suites.yaml").read_text())
    suites["few"]["tasks"].pop("piqa")
    project.write("config/suites.yaml", suites)
    said = {key: value for key, value in (STUDY | FEW | study).items() if value is not None}
    project.write("config/studies/pico.yaml", said)
    return project


def retrain(project: Project, name: str, seed: int) -> str:
    """Write other weights of the same size into a checkpoint's folder; give their digest."""
    family = project.folder.parent
    shutil.rmtree(family / name)
    pico.expert(family / "base", family / name, seed=seed, scale=0.3)
    return folder_digest(family / name)


def edit(project: Project, name: str, seed: int) -> Path:
    """Put other weights where the workflow has a checkpoint's; give the path that they lie at."""
    family, own = project.folder.parent, project.folder / "resources/checkpoints/pico" / name
    other = pico.expert(family / "base", family / "other", seed=seed)
    (own / "model.safetensors").unlink()
    shutil.copy(other / "model.safetensors", own)
    shutil.rmtree(other)
    return own / "model.safetensors"


def words(done) -> str:
    return " ".join((done.stdout + done.stderr).split())


# --- What a plan notices, on verdicts alone -------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Project:
    """A project with the verdicts on two checkpoints. Tests leave the folders as they were."""
    folder, pair = tmp_path_factory.mktemp("measured"), ["ann", "bob"]
    project = project_over(folder, pool=None, models=pair, prefix="")
    project.snakemake(*VERDICTS)
    return project


@pytest.fixture
def family(measured, tmp_path):
    """Its checkpoints' folders; what a test does to them is undone, to the bytes."""
    folder = measured.folder.parent
    for name in ("base", *NAMES):
        shutil.copytree(folder / name, tmp_path / name)
    yield folder
    for name in ("base", *NAMES):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(tmp_path / name, folder / name)


@pytest.mark.parametrize("back", [False, True])
def test_a_retrained_folder_is_measured_again(measured, family, back):
    """And so is one that an older checkpoint, with the times it had, was put back into."""
    retrain(measured, "ann", seed=11)
    if back:
        for file in (family / "ann").iterdir():
            os.utime(file, (1_600_000_000, 1_600_000_000))
    dry = measured.snakemake("-n", *VERDICTS, "--quiet", "rules")
    said = words(dry)
    assert f"pico/ann: the folder {family / 'ann'} holds other files" in said
    assert "pico/bob: " not in said
    assert counts(dry.stdout + dry.stderr) == {"download": 1, "task_vector": 1, "admit": 1}


def test_another_config_is_a_change(measured, family):
    config = family / "bob/config.json"
    text = config.read_text()
    config.write_text(text.replace("}", " }", 1))
    assert measured.jobs(*VERDICTS) == {"download": 1, "task_vector": 1, "admit": 1}
    config.write_text(text)
    assert measured.jobs(*VERDICTS) == {}


def test_what_is_only_touched_or_copied_makes_nothing_again(measured, family):
    for file in (family / "ann").iterdir():
        os.utime(file)
    shutil.copytree(family / "bob", family / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(family / "bob")
    (family / "copy").rename(family / "bob")
    (family / "bob/trainer_state.json").write_text("{}")  # no part of the checkpoint
    dry = measured.snakemake("-n", *VERDICTS, "--quiet", "rules")
    assert counts(dry.stdout + dry.stderr) == {} and "other files" not in words(dry)


def test_a_folder_that_is_away_makes_nothing_again(measured, family):
    (family / "ann").rename(family / "away")
    assert measured.jobs(*VERDICTS) == {}
    (family / "away").rename(family / "ann")


def test_planning_reads_no_weights_whose_times_tell_nothing_new(measured):
    measured.jobs(*VERDICTS)  # notes the times that other tests' copies have
    hidden = measured.folder / "resources/checkpoints/pico/.ann.source.json"
    text = hidden.read_text()
    record = json.loads(text)
    record["files"]["model.safetensors"][-1] = "0" * 64  # would differ if they were read
    hidden.write_text(json.dumps(record))
    assert measured.jobs(*VERDICTS) == {}
    hidden.write_text(text)


# --- What changes between verdict and merge -------------------------------------------


def test_weights_edited_after_their_verdict_are_not_merged(measured):
    """By hand, in the folder that the workflow made, which no plan looks into."""
    digest = json.loads((measured.folder / VERDICTS[0]).read_text())["digest"]
    weights = edit(measured, "ann", seed=21)
    found = folder_digest(weights.parent)
    done = measured.snakemake(f"{MERGE}/summary.json", check=False)
    assert done.returncode
    assert f"resources/checkpoints/pico/ann should have the digest {digest}" in words(done)
    assert f"but have {found}" in words(done)
    assert "delete resources/checkpoints/pico/ann, so that they are brought anew" in words(done)
    assert [p.name for p in (measured.folder / MERGE).glob("*") if p.suffix != ".yaml"] == []
    shutil.rmtree(weights.parent)
    measured.snakemake(*VERDICTS)
    assert json.loads((measured.folder / VERDICTS[0]).read_text())["digest"] == digest


@pytest.mark.slow
def test_a_folder_that_changes_while_a_study_runs_is_refused_then_made_again(measured, family):
    """A merge that was planned before the change, on the verdict that stands."""
    digest = json.loads((measured.folder / VERDICTS[1]).read_text())["digest"]
    after = retrain(measured, "bob", seed=31)
    summary = f"{MERGE}/summary.json"
    done = measured.snakemake(summary, "--rerun-triggers", "mtime", check=False)
    assert done.returncode and f"pico/bob should have the digest {digest}" in words(done)
    assert not (measured.folder / summary).exists()
    measured.snakemake(summary)
    assert json.loads((measured.folder / summary).read_text())["inputs"]["bob"] == after
    assert json.loads((measured.folder / VERDICTS[1]).read_text())["digest"] == after


# --- A whole study --------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory) -> Project:
    """A project whose study has been run, its merges kept."""
    project = project_over(tmp_path_factory.mktemp("changing"))
    project.snakemake("pico")
    return project


@pytest.fixture
def study(finished_once):
    """The same, with nothing left to do."""
    yield finished_once
    finished_once.snakemake("pico")


def loaded(project: Project, pattern: str) -> dict[str, dict]:
    """The JSON files below results/ that a pattern finds, by their paths there."""
    results = project.folder / "results"
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
    for card in (project.folder / "results").glob("studies/pico/kept/pico/*/*/README.md"):
        rows = [line for line in card.read_text().splitlines() if line.startswith(f"| {name} |")]
        found |= {row.rstrip(" |").rsplit(" ", 1)[-1] for row in rows}
    return found


@pytest.mark.slow
def test_what_depends_on_a_retrained_folder_is_made_again(study):
    before = summaries(study)
    others = {path: s for path, s in before.items() if "ann" not in s["members"]}
    assert others and len(others) < len(before)
    after = retrain(study, "ann", seed=11)
    merges = len(before) - len(others)
    assert study.jobs("pico") == {
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
    assert pd.read_csv(study.folder / "results/studies/pico/merges.csv")["accuracy"].notna().all()
    assert study.jobs("pico") == {}


@pytest.mark.slow
def test_scores_of_other_weights_than_the_merges_are_in_no_table(study):
    """A hand that changes weights after every merge, and asks for the checkpoint's score anew."""
    weights = edit(study, "cat", seed=22)
    score = "results/scores/pico/cat/identity/few.json"
    (study.folder / score).unlink()
    study.snakemake(score)
    done = study.snakemake("pico", check=False)
    assert done.returncode
    for what in ("aggregate pico", "compare pico"):
        assert f"{what}: The same weights were expected under the name pico/cat" in words(done)
    shutil.rmtree(weights.parent)
    study.snakemake("pico")
    assert digests_of(study, "cat") == {folder_digest(study.folder.parent / "cat")}


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_models_are_compared_by_the_command_as_before(study):
    merge = next(iter(summaries(study))).replace("merges", "scores")
    files = [Path(merge).parent / "few.items.parquet", "scores/pico/ann/identity/few.items.parquet"]
    said = wildmerge("compare", *files, cwd=study.folder / "results").stdout
    assert "arc_easy" in said
