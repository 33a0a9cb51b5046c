"""The project's own rules on a real Slurm, as typed in a fresh clone."""

import re
import shutil
import subprocess

import pytest
import yaml
from cluster import Cluster, wait_until
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


def cancel_a_merge(cluster: Cluster) -> str:
    """Cancel one merge as soon as it is in the queue; returns its comment."""

    def merges() -> list[str]:
        rows = cluster.run("squeue", "--noheader", "--format=%i %k").splitlines()
        return [row for row in rows if row.endswith("_evaluate_merge")]

    wait_until(merges, "a merge in the queue", 1200)
    number, comment = merges()[0].split()
    cluster.run("scancel", number)
    return comment


def test_the_pico_study_as_typed(tmp_path, clone):
    require()
    with Cluster(tmp_path / "cluster", min_job_age=3600) as cluster:
        workflow = Workflow(clone, cluster)
        process = workflow.start("pico", "--profile", "slurm", "--retries", "0", *SOON)
        lost = cancel_a_merge(cluster)
        assert process.wait(1800) == 1
        first, output = finished_jobs(cluster), workflow.output
        code, _ = workflow.run("pico", "--profile", "slurm", *SOON)
        assert code == 0, workflow.output[-5000:]
        jobs = [job for job in finished_jobs(cluster) if job["JobState"] != "CANCELLED"]
        code, again = workflow.run("pico", "--profile", "slurm")
    assert code == 0 and "Nothing to be done" in again

    assert "One job failed" in output and "SLURM status is: 'CANCELLED'" in output
    # That merge, and what depends on it.
    known = {job["JobId"] for job in first}
    made = sorted(job["Comment"] for job in jobs if job["JobId"] not in known)
    assert made == ["rule_compare_wildcards_pico", lost]
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
