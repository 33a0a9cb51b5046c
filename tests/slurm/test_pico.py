"""The project's own rules on a real Slurm, as typed in a fresh clone."""

import re
import shutil
import subprocess

import pytest
import yaml
from cluster import Cluster
from runs import ROOT, SOON, Workflow, require

pytestmark = pytest.mark.slow
SMALL = {"sizes": [2], "draws": 2, "recipes": ["task_arithmetic", "ties"]}


@pytest.fixture
def clone(tmp_path, project):
    """A fresh clone whose config/ is the pico project's, with four merges."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    study = project.folder / "config/studies/pico.yaml"
    study.write_text(yaml.safe_dump(yaml.safe_load(study.read_text()) | SMALL))
    shutil.rmtree(folder / "config")
    shutil.move(project.folder / "config", folder / "config")
    return folder


def finished_jobs(cluster) -> list[dict[str, str]]:
    """What Slurm remembers of its jobs: key -> value of `scontrol show job`."""
    lines = cluster.run("scontrol", "show", "job", "--oneliner").splitlines()
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]


def broken_and_repaired(workflow: Workflow, before: list[dict[str, str]]) -> None:
    """One merge fails: the run says so; repaired, just it and what depends on it is made."""
    merge = sorted(workflow.folder.glob("results/merges/*/*/ties"))[0]
    name = "/".join(merge.parts[-3:])
    outputs = {path: path.stat().st_mtime_ns for path in workflow.folder.glob("results/**/*.json")}
    shutil.rmtree(merge)
    merge.write_text("no folder\n")
    code, output = workflow.run("pico", "--profile", "slurm", "--retries", "0", *SOON)
    assert code == 1 and "One job failed" in output and f"merge {name}: " in output
    merge.unlink()
    known = {job["JobId"] for job in [*before, *finished_jobs(workflow.cluster)]}
    code, output = workflow.run("pico", "--profile", "slurm", *SOON)
    assert code == 0, output[-5000:]
    made = [job for job in finished_jobs(workflow.cluster) if job["JobId"] not in known]
    assert sorted(job["Comment"] for job in made) == [
        "rule_compare_wildcards_pico",
        f"rule_{name.replace('/', '_')}_evaluate_merge",
    ]
    changed = {path for path, time in outputs.items() if path.stat().st_mtime_ns != time}
    assert {path.parent for path in changed} == {merge, workflow.folder / f"results/scores/{name}"}


def test_the_pico_study_as_typed(tmp_path, clone):
    require()
    with Cluster(tmp_path / "cluster", min_job_age=3600) as cluster:
        workflow = Workflow(clone, cluster)
        code, output = workflow.run("pico", "--profile", "slurm")
        assert code == 0, output[-5000:]
        jobs = finished_jobs(cluster)
        code, output = workflow.run("pico", "--profile", "slurm")
        assert code == 0 and "Nothing to be done" in output
        broken_and_repaired(workflow, jobs)

    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    # A merge and its evaluation are one job, called after what they make.
    merges = sorted(path.parent for path in clone.glob("results/merges/*/*/*/summary.json"))
    named = sorted(job["Comment"] for job in jobs if job["Comment"].endswith("_merge"))
    assert named == [f"rule_{'_'.join(path.parts[-3:])}_evaluate_merge" for path in merges]
    # Exactly the jobs that merge or evaluate held a GPU, one each.
    scores = list(clone.glob("results/scores/*/*/*/few.json"))
    on_gpu = [job for job in jobs if job.get("TresPerJob") == "gres:gpu:1"]
    assert len(on_gpu) == len(scores) == 9
    assert all("_evaluate" in job["Comment"] for job in on_gpu)
    # Checkpoints' task vectors share a job.
    vectors = [job["Comment"] for job in jobs if "task_vector" in job["Comment"]]
    assert vectors == ["rule_task_vectors_task_vector"]


def test_the_pico_study_on_a_whole_node(tmp_path, clone):
    require()
    with Cluster(tmp_path / "cluster", nodes=1, gpus=8) as cluster:
        workflow = Workflow(clone, cluster)
        output = f"--output={clone}/output"
        command = [
            "sbatch",
            "--parsable",
            output,
            f"--chdir={clone}",
            f"{clone}/profiles/node/job.sh",
        ]
        number = workflow.run_here(*command, "pico").strip()
        cluster.wait_for_state(number, "COMPLETED", seconds=1200)
    assert (clone / "results/studies/pico/report.html").exists()
    assert len(list(clone.glob("results/scores/*/*/*/few.json"))) == 9
    # Nothing is left but results.
    assert not list(clone.glob("results/merges/*/*/*/model"))
