"""A study that keeps its merges: what lies in their folders, and what is not made again."""

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from project import STUDY, make_project, wildmerge

KEPT = "results/studies/mine/kept/pico"
FEW = {
    "sizes": [2],
    "draws": 1,
    "pool": "wild",
    "recipes": ["task_arithmetic"],
    "singles": False,
    "keep": True,
    "tables": [],
    "figures": [],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory, pico_family):
    """A project whose one study has merged, scored and kept one merge."""
    project = make_project(tmp_path_factory.mktemp("kept") / "project", *pico_family)
    (project.folder / "config/studies/pico.yaml").unlink()
    project.write("config/studies/mine.yaml", STUDY | FEW)
    choices = yaml.safe_load((project.folder / "config/config.yaml").read_text())
    project.write("config/config.yaml", choices | {"studies": ["mine"]})
    project.snakemake("mine")
    return project


def folder_of(project):
    (found,) = (project.folder / KEPT).glob("*/task_arithmetic")
    return found


def test_a_kept_folder_is_ready_for_the_hub(project):
    folder = folder_of(project)
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.json", "mergekit.yaml", "summary.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    card = ModelCard((folder / "README.md").read_text())
    facts = card.data.to_dict()
    assert None not in facts.values()
    assert facts["library_name"] == "transformers" and facts["tags"] == ["merge", "mergekit"]
    for repo in facts.get("base_model", []):
        validate_repo_id(repo)
    for path in folder.iterdir():
        if path.suffix in (".md", ".json", ".yaml"):
            assert str(project.folder.parents[1]) not in path.read_text(), path.name
            assert "dir:" not in path.read_text(), path.name


def test_the_yaml_beside_a_merge_works_from_its_own_folder(project, tmp_path):
    summary = yaml.safe_load((folder_of(project) / "summary.json").read_text())
    merged = next((project.folder / "results/merges/pico").glob("*/task_arithmetic"))
    for place, cwd in ((merged, merged), (folder_of(project), tmp_path)):
        out = tmp_path / cwd.name
        wildmerge("merge", place / "mergekit.yaml", out, "--quiet", cwd=cwd)
        digest = wildmerge("digest", out, cwd=tmp_path).stdout.split()[0]
        assert digest == summary["output_digest"]


def test_the_report_prints_the_path_to_ask_for(project):
    page = (project.folder / "results/studies/mine/report.html").read_text()
    target = (folder_of(project) / "README.md").relative_to(project.folder).as_posix()
    assert f"<code>{target}</code>" in page


def test_what_is_kept_is_not_made_again(project):
    assert project.jobs("mine") == {}
    more = STUDY | FEW | {"recipes": ["task_arithmetic", "ties"]}
    project.write("config/studies/mine.yaml", more)
    try:
        jobs = project.jobs("mine")
    finally:
        project.write("config/studies/mine.yaml", STUDY | FEW)
    assert jobs["merge"] == jobs["keep"] == jobs["evaluate"] == 1
