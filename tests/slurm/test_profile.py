"""`--profile slurm` on real daemons: what it chooses, names, retries and reports."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import yte
from cluster import Cluster, wait_until
from runs import ROOT, SOON, require

PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"


def settings(monkeypatch, path: Path = PROFILE, **environment: str) -> dict:
    """What a profile says to Snakemake in this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with path.open() as profile:
        return yte.process_yaml(profile, require_use_yte=True)


def test_profile_resolves_by_name_in_a_clone():
    assert os.readlink(ROOT / "slurm") == "profiles/slurm"
    assert (ROOT / "slurm" / "config.yaml").samefile(PROFILE)


def test_status_comes_from_the_queue_where_no_accounts_are_kept(monkeypatch, cluster):
    chosen = settings(monkeypatch, **cluster.env)
    assert chosen["slurm-status-command"] == "squeue"
    # The plugin turns to sacct, and waits for ever, below three times this (MinJobAge is 300).
    assert chosen["slurm-init-seconds-before-status-checks"] * 3 <= cluster.min_job_age


def test_a_queue_that_forgets_too_soon_is_refused(monkeypatch, tmp_path):
    require()
    with (
        Cluster(tmp_path / "c", nodes=1, min_job_age=100) as forgetful,
        pytest.raises(SystemExit, match=r"after 100 s \(MinJobAge\).*administrators"),
    ):
        settings(monkeypatch, **forgetful.env)


def test_profile_can_be_read_where_there_is_no_slurm(monkeypatch, tmp_path):
    chosen = settings(monkeypatch, PATH=str(tmp_path))
    assert chosen["executor"] == "slurm"


def test_profiles_do_not_contradict_each_other(monkeypatch, cluster):
    """A key of profiles/default beats the same key of --profile."""
    common = settings(monkeypatch, ROOT / "profiles/default/config.yaml", **cluster.env)
    ours = settings(monkeypatch, **cluster.env)
    assert {key: ours[key] for key in common} == common


def test_one_bad_merge_and_one_short_of_memory(cluster, toy):
    workflow = toy(cluster, merges=3)
    bad, hungry, good = (f"toy/n02-0{number}/ties" for number in range(3))
    workflow.fault("merge.n02-00.ties", "exit")
    workflow.fault("evaluate.n02-01.ties", "memory")

    code, output = workflow.run("all", "--profile", "slurm", "--retries", "1", *SOON)

    assert code == 1
    # Everybody else finished; memory was doubled once; the bad one was tried twice.
    scores = sorted(workflow.folder.glob("results/scores/toy/*/*/paper.json"))
    assert [str(path.parent.relative_to(workflow.folder)) for path in scores] == [
        f"results/scores/{hungry}",
        f"results/scores/{good}",
    ]
    counts = workflow.counts()
    assert (counts[f"merge/{bad}"], counts[f"evaluate/{bad}/paper"]) == (2, 0)
    assert counts[f"evaluate/{hungry}/paper"] == 2
    assert (counts[f"merge/{good}"], counts[f"evaluate/{good}/paper"]) == (1, 1)
    # Every GPU job held a GPU; numerical libraries got as many threads as the rule has.
    assert all(r["gpus"] in ("0", "1") for r in workflow.journal() if "/n02" in r["what"])
    there = min(8, len(os.sched_getaffinity(0)))
    assert {r["threads"] for r in workflow.journal() if "evaluate" in r["what"]} == {str(there)}
    # The report names the group, the rule's log and Slurm's log, and they tell what happened.
    assert "Error in group toy_n02-00_ties" in output
    assert f"logs/merge/{bad}.log (check log file(s) for error details)" in output
    assert "NaN" in (workflow.folder / f"logs/merge/{bad}.log").read_text()
    logs = sorted(workflow.folder.glob("logs/slurm/group_toy_n02-00_ties*/*.log"))
    assert len(logs) == 2 and all(str(log) in output for log in logs)
    assert "told to fail" in logs[0].read_text()

    workflow.fault("merge.n02-00.ties", None)
    _, output = workflow.run("all", "-n", "--quiet", "rules", "--profile", "slurm")
    planned = re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE)
    assert dict(planned) == {
        "merge": "1",
        "evaluate": "1",
        "aggregate": "1",
        "all": "1",
        "total": "4",
    }
    assert not list(workflow.folder.glob("results/merges/*/*/*/model"))


@pytest.mark.slow
def test_weights_need_not_leave_the_node(cluster, toy):
    workflow = toy(cluster, merges=2, suites=("paper", "demo"))
    scratch = cluster.scratch / "study"
    code, output = workflow.run(
        "all", "--profile", "slurm", *SOON, "--config", f"scratch={scratch}"
    )
    assert code == 0, output[-3000:]
    assert set(workflow.counts().values()) == {1} and len(workflow.journal()) == 6
    for node in cluster.nodes:
        assert not cluster.run("srun", "-w", node, "--mem=100", "find", str(scratch), "-type", "f")
    # Where the nodes' scratch is their own, nothing was ever seen here.
    assert scratch.exists() != cluster.scratch_is_local
    again = ("all", "-n", "--profile", "slurm", "--config", f"scratch={scratch}")
    assert "Nothing to be done" in workflow.run(*again)[1]


@pytest.mark.slow
def test_merged_weights_in_flight_are_bounded(cluster, toy):
    workflow = toy(cluster, merges=3, seconds=20)
    bound = ("--resources", "gpu=1", "disk_mb=2500")  # two of 1,000 MB
    process = workflow.start("all", "--profile", "slurm", *SOON, *bound)
    workflow.wait_for(2)
    time.sleep(10)
    submitted = len(cluster.queue())
    process.send_signal(signal.SIGINT)
    process.wait(180)
    assert submitted == 2


def test_jobs_are_called_after_what_they_make_and_end_with_ctrl_c(cluster, toy):
    workflow = toy(cluster, merges=1, seconds=20)
    process = workflow.start("all", "--profile", "slurm", *SOON)
    workflow.wait_for(1)
    comment, cpus = cluster.run("squeue", "-h", "-o", "%k %C").split()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert comment == "rule_toy_n02-00_ties_evaluate_merge"
    # As many as the profile says, however few the machine has that submits.
    assert cpus == "8"
    wait_until(lambda: not cluster.queue(), "jobs cancelled")
    assert not list(workflow.folder.glob("results/merges/**/*.*"))
    # Nothing is locked.
    code, output = workflow.run("all", "-n", "--profile", "slurm")
    assert code == 0 and "evaluate" in output


def test_the_example_site_sends_every_rule_without_a_gpu_elsewhere(monkeypatch):
    """Each rule of the workflow that is submitted, and holds no GPU."""
    snakefile = (ROOT / "Snakefile").read_text()
    local = re.search(r"^localrules:\n((?:    \w+,\n)+)", snakefile, re.MULTILINE)
    blocks = re.split(r"^rule (\w+):$", snakefile, flags=re.MULTILINE)[1:]
    rules = dict(zip(blocks[::2], blocks[1::2], strict=True))
    submitted = {rule for rule, text in rules.items() if "    script:" in text} - set(
        re.findall(r"\w+", local[1])
    )
    without = {rule for rule in submitted if not re.search(r"^ +gpu=", rules[rule], re.MULTILINE)}
    sent = settings(monkeypatch, ROOT / "profiles/example-site/config.yaml")["set-resources"]
    assert set(sent) == without
    assert all(place["slurm_partition"] in ("'cpu'", "'transfer'") for place in sent.values())


def test_jobs_that_take_turns_ask_for_the_most_of_one_and_the_time_of_all(cluster, toy):
    """Slurm's jobs run the jobs of a group one after another."""
    workflow = toy(cluster)
    process = workflow.start("vectors", "--profile", "slurm", *SOON)
    wait_until(cluster.queue, "the group submitted")
    asked = cluster.run("squeue", "-h", "-o", "%C %m %l").split()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    # Eight of four cores, 1,000 MB and 20 minutes.
    assert asked == ["4", "1000M", "2:40:00"]


def test_example_site_changes_only_what_a_site_decides(monkeypatch, cluster):
    example = settings(monkeypatch, ROOT / "profiles/example-site/config.yaml", **cluster.env)
    site = {"jobs", "default-resources", "set-resources"}
    assert set(example) == site
    assert settings(monkeypatch, **cluster.env)["default-resources"].items() <= (
        example["default-resources"].items()
    )
