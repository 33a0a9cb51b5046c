"""A whole node in one allocation: every GPU on another merge, Snakemake's local executor inside."""

import itertools

import pytest
import yte
from cluster import Cluster, wait_until
from runs import ROOT, overlaps, require


def submit(workflow, *options: str) -> str:
    """Submit the profile's script, as its README has it; returns the job's number."""
    script = str(workflow.folder / "profiles/node/job.sh")
    output = f"--output={workflow.folder}/output"
    place = f"--chdir={workflow.folder}"
    command = ["sbatch", "--parsable", output, place, *options, script, "all"]
    return workflow.run_here(*command).strip()


def most_at_a_time(records: list[dict]) -> int:
    """How many jobs ran side by side at most."""
    steps = sorted((r["time"], 1 if r["event"] == "start" else -1) for r in records)
    return max(itertools.accumulate(step for _, step in steps))


def test_eight_gpus_and_twenty_four_merges(tmp_path, toy):
    require()
    with Cluster(tmp_path / "c", nodes=1, cpus=16, gpus=8) as cluster:
        workflow = toy(cluster, merges=24, seconds=2)
        number = submit(workflow)
        cluster.wait_for_state(number, "COMPLETED", seconds=400)
    assert len(workflow.scores().splitlines()) == 24
    assert set(workflow.counts().values()) == {1}
    records = [r for event in ("start", "end") for r in workflow.journal(event)]
    on_gpus = [r for r in records if r["what"].startswith(("merge", "evaluate"))]
    assert len(on_gpus) == 2 * 2 * 24 and {r["job"] for r in on_gpus} == {number}
    # Eight at a time, each device used by one job at a time, all of them used.
    assert most_at_a_time(on_gpus) == 8
    assert {r["gpus"] for r in on_gpus} == {str(device) for device in range(8)}
    assert not overlaps(on_gpus)
    # A share of the node's cores each.
    assert {r["threads"] for r in on_gpus} == {"2"}


@pytest.mark.slow
def test_it_stops_in_time_and_the_same_command_goes_on(tmp_path, toy):
    require()
    with Cluster(tmp_path / "c", nodes=1, cpus=16, gpus=8) as cluster:
        workflow = toy(cluster, merges=80, seconds=10)
        # Two minutes; one before their end the script's signal comes.
        number = submit(workflow, "--time=2", "--signal=B:TERM@60")
        wait_until(lambda: not cluster.queue(), "ended", seconds=200)
        assert "JobState=FAILED" in cluster.run("scontrol", "show", "job", number)
        assert "finishing currently running jobs" in workflow.output
        # What was begun was finished, and nothing is locked.
        assert workflow.counts("start") == workflow.counts("end")
        first = workflow.counts()
        assert 16 < len(first) < 2 * 80
        cluster.wait_for_state(submit(workflow), "COMPLETED", seconds=400)
    assert len(workflow.scores().splitlines()) == 80
    assert set(workflow.counts().values()) == {1}


def test_it_says_where_it_belongs(monkeypatch):
    """Outside of a job with GPUs the profile is refused, with what to type."""
    for name in ("SLURM_CPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match=r"sbatch profiles/node/job\.sh TARGET"):
        settings()
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    with pytest.raises(SystemExit, match=r"--gpus-per-node"):
        settings()


def settings() -> dict:
    """What the profile says to Snakemake."""
    with (ROOT / "profiles/node/config.yaml").open() as profile:
        return yte.process_yaml(profile, require_use_yte=True)
