"""Where merged weights wait for their evaluation is no part of what a score depends on."""

import shutil

import pytest
import yaml
from project import Project

SCORE = "results/scores/pico/n02-01/task_arithmetic/few.json"


@pytest.fixture
def moved(finished, tmp_path) -> Project:
    """The finished project in another folder, as when a clone is moved."""
    return Project(shutil.copytree(finished.folder, tmp_path / "moved", symlinks=True))


def set_scratch(project: Project, folder: object) -> None:
    """Write the key `scratch`, or take it out."""
    choices = yaml.safe_load((project.folder / "config/config.yaml").read_text())
    choices.pop("scratch", None)
    project.write("config/config.yaml", choices | ({"scratch": str(folder)} if folder else {}))


def test_a_scratch_or_another_folder_makes_no_finished_study_again(moved, tmp_path):
    assert moved.jobs("pico") == {}
    set_scratch(moved, tmp_path / "scratch")
    assert moved.jobs("pico") == {}


def test_what_was_evaluated_from_a_scratch_is_not_made_again_without_it(moved, tmp_path):
    set_scratch(moved, tmp_path / "scratch")
    (moved.folder / SCORE).unlink()
    assert moved.jobs(SCORE) == {"merge": 1, "evaluate": 1}
    moved.snakemake(SCORE)
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
    elsewhere = Project(moved.folder.rename(tmp_path / "elsewhere"))
    for scratch in (tmp_path / "scratch", tmp_path / "another", None):
        set_scratch(elsewhere, scratch)
        assert elsewhere.jobs(SCORE) == {}
