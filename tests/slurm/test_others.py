"""What others do to a study: cancel its jobs, limit it, restart its controller, kill its run."""

import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from cluster import find, wait_until
from runs import SOON
from test_trouble import expected

pytestmark = pytest.mark.slow
RUN = ("all", "--profile", "slurm", *SOON)
# s; without the patches of the plugin, each of these runs would last until it is killed.
LONG = 480


@pytest.fixture
def cluster(accounting_cluster):
    yield accounting_cluster
    accounting_cluster.limit_submissions(None)


def finish(workflow, process, merges: int) -> None:
    """Wait for Snakemake; the study is whole and equal to an undisturbed one."""
    try:
        assert process.wait(LONG) == 0, workflow.output[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
    assert workflow.scores().splitlines() == expected(merges)


def site(workflow, **resources) -> tuple[str, str]:
    """A site's own profile, with these `default-resources` beside the usual ones."""
    folder = workflow.folder / "site"
    folder.mkdir(exist_ok=True)
    defaults = {"mem_mb": 1000, "disk_mb": 0, "runtime": 1, **resources}
    (folder / "config.yaml").write_text(yaml.safe_dump({"default-resources": defaults}))
    return "--workflow-profile", "site"


def watched(workflow) -> dict[str, tuple[int, ...]]:
    """Rule -> what `wildmerge watch` counts of its jobs: done, running, waiting, all."""
    done = subprocess.run(
        [sys.executable, "-m", "wildmerge", "watch"],
        cwd=workflow.folder,
        env={**workflow.env, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [re.findall(r"[^│┃]+", line) for line in done.stdout.splitlines() if "│" in line]
    return {
        name.strip(): tuple(int(cells[at].strip() or 0) for at in (0, 1, 2, 5))
        for name, *cells in rows
    }


def test_jobs_that_are_cancelled_or_preempted_are_tried_again(cluster, toy):
    workflow = toy(cluster, merges=2, seconds=20)
    process = workflow.start(*RUN, *site(workflow, slurm_partition="scavenge"))
    workflow.wait_for(2)
    by_hand, preempted = cluster.queue()
    cluster.run("scancel", by_hand)
    cluster.run(
        *("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"),
        *("--mem=1000", "--wrap=sleep 2"),
    )
    finish(workflow, process, 2)
    assert "status is: 'CANCELLED'" in workflow.output
    assert f"Job {preempted} of Slurm was preempted" in workflow.output
    assert max(workflow.counts().values()) == 2


def test_refused_submissions_wait_and_use_up_no_attempt(cluster, toy):
    cluster.limit_submissions(2)
    workflow = toy(cluster, merges=4)
    process = workflow.start(*RUN, "--retries", "0")
    workflow.wait_for(2)
    done, running, waiting, of = watched(workflow)["merge"]
    assert done + running + waiting == of == 4
    assert waiting >= 2 >= running
    finish(workflow, process, 4)
    assert "AssocMaxSubmitJobLimit" in workflow.output
    assert set(workflow.counts().values()) == {1}


def test_a_controller_that_is_away_is_waited_for(cluster, toy):
    workflow = toy(cluster, merges=2)
    cluster.stop_controller()
    process = workflow.start(*RUN, "--retries", "0")
    try:
        wait_until(lambda: "no more jobs for now" in workflow.output, "refusal", 60)
    finally:
        cluster.start_controller()
    finish(workflow, process, 2)
    assert "Unable to contact slurm controller" in workflow.output
    assert set(workflow.counts().values()) == {1}


def test_a_submission_that_was_taken_without_an_answer_is_not_made_twice(cluster, toy):
    """Slurm's own words for a controller that is too busy to answer; the job is in its queue."""
    workflow = toy(cluster, merges=1, seconds=15)
    sbatch = cluster.folder / "bin/sbatch"
    sbatch.write_text(
        f"""#!/bin/sh
        [ -e {workflow.folder}/once ] && exec {find("sbatch")} "$@"
        touch {workflow.folder}/once
        {find("sbatch")} "$@" > /dev/null
        echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv" >&2
        exit 1
        """
    )
    sbatch.chmod(0o755)
    try:
        finish(workflow, workflow.start(*RUN, "--retries", "0"), 1)
    finally:
        sbatch.unlink()
    assert "timed out" in workflow.output
    assert set(workflow.counts("end").values()) == {1}


def test_what_slurm_never_takes_fails_at_once_with_its_words(cluster, toy):
    workflow = toy(cluster, merges=1)
    code, output = workflow.run(*RUN, *site(workflow, slurm_partition="gone"), seconds=LONG)
    assert code == 1
    assert "invalid partition specified: gone" in output
    assert "Trying to restart" not in output


def test_an_attempt_that_asks_for_too_much_is_ended_or_capped(cluster, toy):
    """3 minutes are the most in partition short: attempt 1 asks for 2, attempt 2 for 4."""
    workflow = toy(cluster, merges=1, minutes=1)
    workflow.fault("evaluate.n02-00.ties", "memory")
    short = {"slurm_partition": "short"}
    code, output = workflow.run(*RUN, *site(workflow, **short), seconds=LONG)
    assert code == 1
    assert "will never start its job" in output and "PartitionTimeLimit" in output
    assert "asks for 4:00" in output and "max_runtime" in output
    assert output.count("Trying to restart") == 1

    process = workflow.start(*RUN, *site(workflow, max_runtime=3, **short))
    finish(workflow, process, 1)


def test_a_job_that_slurm_forgets_is_not_waited_for(cluster, toy):
    """As where the login node sleeps, and no accounts are kept."""
    workflow = toy(cluster, merges=1)
    process = workflow.start(*RUN, "--slurm-status-command", "squeue")
    workflow.wait_for(1)
    process.send_signal(signal.SIGSTOP)
    name = cluster.run("squeue", "--noheader", "--format=%j").strip()
    all_of_it = ("squeue", "--noheader", "--states=all", "--name", name)
    wait_until(lambda: not cluster.run(*all_of_it).strip(), "forgotten", 150)
    process.send_signal(signal.SIGCONT)
    finish(workflow, process, 1)
    assert "Slurm has forgotten its job" in workflow.output


def test_an_error_that_stays_is_not_tried_again(cluster, toy):
    workflow = toy(cluster, merges=2)
    workflow.fault("merge.n02-00.ties", "broken")
    workflow.fault("evaluate.n02-01.ties", "memory")
    code, output = workflow.run(*RUN, seconds=LONG)
    assert code == 1
    assert (
        "One job failed; what depends on it was not made:\nmerge toy/n02-00/ties: Weights were "
        "expected, found NaN.\n  Log: logs/merge/toy/n02-00/ties.log, /" in output
    )
    counts = workflow.counts()
    assert counts["merge/toy/n02-00/ties"] == 1
    assert counts["evaluate/toy/n02-01/ties/paper"] == 2
    # A log of that run is no reason to stop another one.
    workflow.fault("merge.n02-00.ties", "exit")
    workflow.run(*RUN, "--retries", "1", seconds=LONG)
    assert workflow.counts()["merge/toy/n02-00/ties"] == 3


def test_a_killed_run_needs_no_other_command_than_the_same_again(cluster, toy):
    workflow = toy(cluster, merges=6, seconds=8)
    process = workflow.start(*RUN)
    workflow.wait_for(6)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = cluster.queue()
    # Some of them end without a master.
    already = len(workflow.journal("end"))
    wait_until(lambda: len(workflow.journal("end")) > already, "a job ends", 60)
    time.sleep(2)
    again = workflow.start(*RUN)
    finish(workflow, again, 6)
    assert left and "An earlier run was killed" in workflow.output
    # What was whole is not made again, and no two jobs made the same at the same time.
    scored = [r["what"] for r in workflow.journal("end") if r["what"].startswith("evaluate")]
    assert sorted(scored) == sorted(set(scored))


def test_all_of_it_in_one_study(cluster, toy):
    """A limit, a cancelled job, a controller away for a minute, a cap, a killed run."""
    cluster.limit_submissions(2)
    workflow = toy(cluster, merges=5, seconds=5, minutes=1)
    run = (*RUN, *site(workflow, slurm_partition="short", max_runtime=3))
    process = workflow.start(*run)
    workflow.wait_for(2)
    cluster.run("scancel", cluster.queue()[0])
    cluster.stop_controller()
    time.sleep(60)
    cluster.start_controller()
    scores = workflow.folder / "results/scores"
    wait_until(lambda: len(list(scores.rglob("*.json"))) >= 2, "two scores", LONG)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = [path.parent.relative_to(scores) for path in scores.rglob("*.json")]
    finish(workflow, workflow.start(*run), 5)
    assert all(workflow.counts()[f"evaluate/{name}/paper"] == 1 for name in whole)
    assert "Slurm takes no more jobs for now" in workflow.output
