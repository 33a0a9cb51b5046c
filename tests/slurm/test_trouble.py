"""What clusters do to a study: it finishes, and its results are those of a quiet run."""

import hashlib
import re
import time
from pathlib import Path

import pytest
from cluster import Cluster
from runs import SOON, overlaps, require

pytestmark = pytest.mark.slow

RUN = ("all", "--profile", "slurm", *SOON)


def expected(merges: int, recipes=("ties",)) -> list[str]:
    """The lines of the toy's table, computed without it."""
    lines = []
    for number in range(merges):
        for recipe in recipes:
            name = f"toy/n02-{number:02}/{recipe}"
            digest = hashlib.sha256(f"merge/{name}".encode() * 1000).hexdigest()
            lines.append(f'results/scores/{name}/paper.json,"{digest}"')
    return lines


def finish(workflow, process, merges: int) -> None:
    """Wait for Snakemake; the study is whole and equal to an undisturbed one."""
    assert process.wait(1800) == 0, workflow.output[-3000:]
    assert workflow.scores().splitlines() == expected(merges)
    assert not list(workflow.folder.glob("results/merges/*/*/*/model"))
    assert not workflow.cluster.queue()


def printed_log(workflow) -> str:
    """The text of Slurm's log whose path the first failure printed."""
    printed = re.search(r"message: Error in group.*\n +log: (\S+)", workflow.output)
    return Path(printed[1]).read_text()


def test_two_hundred_gpu_jobs(tmp_path, toy):
    """Nothing lost, nothing run twice, each on a GPU of its own."""
    require()
    recipes = ("ties", "tsv_m")
    with Cluster(tmp_path / "c", nodes=4, gpus=2) as cluster:
        workflow = toy(cluster, merges=50, recipes=recipes, seconds=0.1)
        began = time.monotonic()
        code, output = workflow.run(*RUN, seconds=3000)
        print(f"200 GPU jobs in {time.monotonic() - began:.0f} s")
    assert code == 0, output[-3000:]
    assert workflow.scores().splitlines() == expected(50, recipes)
    counts = workflow.counts()
    assert len(counts) == 200 and set(counts.values()) == {1}
    records = workflow.journal("start") + workflow.journal("end")
    assert {r["gpus"] for r in records} == {"0", "1"}
    assert not overlaps(records)


def test_a_job_out_of_time_gets_more(cluster, toy):
    workflow = toy(cluster, merges=1, minutes=1)
    workflow.fault("evaluate.n02-00.ties", "time")
    process = workflow.start(*RUN)
    finish(workflow, process, 1)
    assert workflow.counts()["evaluate/toy/n02-00/ties/paper"] == 2
    assert "DUE TO TIME LIMIT" in printed_log(workflow)


def test_site_with_accounts(accounting_cluster, toy):
    """Status by sacct, where squeue forgets after 20 s; the reason of a failure is told."""
    workflow = toy(accounting_cluster, merges=2)
    workflow.fault("evaluate.n02-01.ties", "memory")
    finish(workflow, workflow.start(*RUN), 2)
    assert "exceeded memory limit" in printed_log(workflow)
    comments = accounting_cluster.run("sacct", "-X", "-n", "-P", "--format=Comment").split()
    assert "rule_toy_n02-00_ties_evaluate_merge" in comments


def test_a_node_goes_down(cluster, toy):
    workflow = toy(cluster, merges=6, seconds=10)
    process = workflow.start(*RUN)
    workflow.wait_for(4)
    cluster.lose_node("n1")
    time.sleep(10)
    cluster.return_node("n1")
    finish(workflow, process, 6)
    assert len(workflow.journal()) > 12  # some did start twice


def test_preemption(cluster, toy):
    workflow = toy(cluster, merges=4, seconds=10)
    process = workflow.start(*RUN)
    workflow.wait_for(4)
    urgent = ["sbatch", "--partition=urgent", "--gpus=2", "--mem=1000", "--output=/dev/null"]
    for _ in range(2):
        cluster.run(*urgent, "--wrap=sleep 15")
    finish(workflow, process, 4)
    assert len(workflow.journal()) > 8


def test_slurmctld_restarts(cluster, toy):
    workflow = toy(cluster, merges=6, seconds=5)
    process = workflow.start(*RUN)
    workflow.wait_for(2)
    cluster.stop_controller()
    time.sleep(20)
    cluster.start_controller()
    # A job whose second step wants to start meanwhile fails, and is tried again.
    finish(workflow, process, 6)
    assert max(workflow.counts().values()) <= 2


def test_a_bad_merge_mended_is_made_alone(cluster, toy):
    workflow = toy(cluster, merges=3)
    workflow.fault("merge.n02-00.ties", "exit")
    code, _ = workflow.run(*RUN, "--retries", "0")
    before = workflow.counts()
    workflow.fault("merge.n02-00.ties", None)
    finish(workflow, workflow.start(*RUN), 3)
    assert code == 1
    bad = "toy/n02-00/ties"
    assert workflow.counts() - before == {f"merge/{bad}": 1, f"evaluate/{bad}/paper": 1}
