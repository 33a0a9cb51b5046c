"""The wheel: built, installed apart from the checkout, every command and a study's plan from it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from project import ROOT, counts

pytestmark = pytest.mark.slow


def call(*words: object, cwd: Path) -> str:
    """Run a command outside the checkout, without its PYTHONPATH; what it printed."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    (path,) = folder.glob("wildmerge-*.whl")
    return path


@pytest.fixture(scope="module")
def binaries(wheel, tmp_path_factory) -> Path:
    """bin/ of an environment with the wheel; all else comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install"]
    call(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_it_holds_the_whole_workflow(wheel):
    names = {*zipfile.ZipFile(wheel).namelist()}
    parts = ("config", "envs", "profiles", "workflow")
    files = [ROOT / "Snakefile", *(path for part in parts for path in (ROOT / part).rglob("*"))]
    for path in files:
        name = str(path.relative_to(ROOT))
        # The second Snakefile serves Snakemake's catalogue of workflows alone.
        if path.is_dir() or "__pycache__" in name or name == "workflow/Snakefile":
            continue
        own = name.removeprefix("workflow/src/")
        assert own in names or f"wildmerge/_workflow/{name}" in names, name
    assert "wildmerge/py.typed" in names


def test_a_project_of_its_own_runs(binaries, project, pico_family, tmp_path):
    base, experts = pico_family
    wildmerge = binaries / "wildmerge"
    folder = tmp_path / "mine"
    call(wildmerge, "new", "project", folder, cwd=tmp_path)
    assert "_workflow" in call(
        binaries / "python", "-c", "import wildmerge.home as h; print(h.home())", cwd=folder
    )
    snakemake = [binaries / "python", "-m", "snakemake"]
    planned = call(*snakemake, "demo", "-n", "--quiet", "rules", cwd=folder)
    assert counts(planned)["merge"] == 14

    # The sheets of the pico study in place of the project's.
    for file in ("models.tsv", "suites.yaml", "config.yaml", "studies/pico.yaml"):
        (folder / "config" / file).write_text((project.folder / "config" / file).read_text())
    for study in (folder / "config/studies").iterdir():
        if study.name != "pico.yaml":
            study.unlink()
    call(wildmerge, "new", "study", "other", cwd=folder)
    call(wildmerge, "lock", cwd=folder)
    assert "Peak disk" in call(wildmerge, "plan", "pico", cwd=folder)
    assert "0 unusable" in call(wildmerge, "preflight", "pico", cwd=folder)
    assert "1 of 1 jobs done" in call(wildmerge, "watch", cwd=folder)
    # One merge and its scores, through all scripts up to there.
    scores = "results/scores/pico/n02-01/iso_c/few"
    call(*snakemake, "--cores", "2", "--notemp", f"{scores}.json", cwd=folder)

    call(wildmerge, "evaluate", base, "--suite", "few", "--out", "a", cwd=folder)
    items = ["a/few.items.parquet", f"{scores}.items.parquet"]
    assert "mean over tasks" in call(wildmerge, "compare", *items, cwd=folder)
    merge = folder / "results/merges/pico/n02-01/iso_c"
    call(wildmerge, "merge", merge / "mergekit.yaml", "again", "--quiet", cwd=folder)
    digests = call(wildmerge, "digest", merge / "model", "again", cwd=folder).split()
    assert digests[0] == digests[2]
    (tasks,) = folder.glob("resources/by-hand/suites/few-*/tasks")
    words = ["--model", "shared-prefix", "--model_args", f"pretrained={experts['ann']}"]
    words += ["--tasks", "piqa", "--include_path", tasks, "--device", "cpu"]
    assert "acc_norm" in call(wildmerge, "lm-eval", "run", *words, cwd=folder)


def test_jobs_in_an_environment_of_their_own_find_the_package_alone(binaries, tmp_path):
    code = "from pathlib import Path; from wildmerge.home import search_path; import wildmerge\n"
    code += "path = search_path(Path()); print(path, Path(wildmerge.__file__).parent)"
    path, package = call(binaries / "python", "-c", code, cwd=tmp_path).split()
    assert [found.name for found in Path(path).iterdir()] == ["wildmerge"]
    assert (Path(path) / "wildmerge").resolve() == Path(package)
    again, _ = call(binaries / "python", "-c", code, cwd=tmp_path).split()
    assert again == path
