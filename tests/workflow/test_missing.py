"""Study `wild`'s design where one checkpoint is refused and one has vanished: both ways on."""

import hub as hubs
import pico
import pytest
import yaml
from project import ROOT, Project, make_project, models_sheet
from wildmerge.cli import lock as lock_command

pytestmark = pytest.mark.slow

EXPERTS = ["ann", "bob", "cat", "dan", "eve"]
BASES = ["ape", "bee"]
# Its weights are another model's; its repository is gone after it was locked.
REFUSED, VANISHED = "ape/dan", "bee/eve"
DESIGN = yaml.safe_load((ROOT / "config/studies/wild.yaml").read_text()) | {
    "bases": BASES,
    "sizes": [2, 4, 5],
    "draws": 4,
    "recipes": ["task_arithmetic", "ties"],
    "suites": ["few"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """The study over two bases of five experts on a hub; nothing has run."""
    folder = tmp_path_factory.mktemp("missing")
    with pytest.MonkeyPatch.context() as patch, hubs.serve() as server:
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        rows = []
        for seed, base in enumerate(BASES):
            made = {"base": pico.llama(folder / base / "base", seed=seed)}
            for i, name in enumerate(EXPERTS, start=1):
                made[name] = folder / base / name
                if f"{base}/{name}" == REFUSED:
                    pico.llama(made[name], seed=99)
                else:
                    pico.expert(made["base"], made[name], seed=i, scale=0.3)
            for name, path in made.items():
                server.repositories[f"{base}/{name}"] = hubs.Repository(hubs.from_folder(path))
                row = {"base": base, "model": name, "repo": f"{base}/{name}"}
                rows.append(row | ({"gb": "0.01"} if name == "base" else {"pool": "wild"}))
        project = make_project(folder / "project", folder / "ape/base", {})
        (project.folder / "config/studies/pico.yaml").unlink()
        project.write("config/models.tsv", models_sheet(rows))
        project.write("config/studies/wild.yaml", DESIGN)
        choices = yaml.safe_load((ROOT / "config/config.yaml").read_text())
        project.write("config/config.yaml", choices | {"studies": ["wild"]})
        assert lock_command.update(project.folder / "config") == 0
        del server.repositories[VANISHED]
        yield project


@pytest.fixture(scope="module")
def stopped(project) -> tuple[Project, str, str]:
    """The project after its first run, what its preflight and that run said."""
    before = project.snakemake("results/studies/wild/preflight.json", check=False)
    run = project.snakemake("wild", check=False)
    assert before.returncode and run.returncode
    return project, before.stdout + before.stderr, run.stdout + run.stderr


def test_the_preflight_finds_the_vanished_row_and_names_the_ways_on(stopped):
    _, said, _ = stopped
    assert f"10 cannot be used: {VANISHED}" in said or f"1 of 12 cannot be used: {VANISHED}" in said
    for way in ("config/models.tsv", f"without: [{VANISHED}]", "missing:", "config/studies/wild"):
        assert way in said
