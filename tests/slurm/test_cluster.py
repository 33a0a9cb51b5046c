"""The test cluster itself: it comes, schedules GPUs, keeps or forgets its jobs, and goes."""

import subprocess

import pytest
from cluster import Cluster, free_ports
from runs import require


def test_free_ports_are_distinct():
    ports = free_ports(20)
    assert len(set(ports)) == 20


def test_jobs_that_run_together_hold_different_gpus(cluster):
    script = "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; sleep 1"
    jobs = [
        subprocess.Popen(
            ["srun", "--gpus=1", "--mem=1000", "sh", "-c", script],
            env=cluster.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(4)
    ]
    held = sorted(job.communicate(timeout=60)[0].strip() for job in jobs)
    assert held == ["n1 0", "n1 1", "n2 0", "n2 1"]


def test_clusters_follow_one_another(tmp_path):
    require()
    for name in ("a", "b"):
        with Cluster(tmp_path / name, nodes=1) as one:
            assert one.run("srun", "--mem=100", "hostname").strip()
            daemons = list(one.daemons.values())
        assert all(daemon.poll() is not None for daemon in daemons)


def test_a_lost_node_gives_its_job_back_and_returns(tmp_path):
    require()
    with Cluster(tmp_path / "c", nodes=1) as one:
        number = one.run(
            "sbatch", "--parsable", "--output=/dev/null", "--mem=100", "--wrap=sleep 60"
        ).strip()
        one.wait_for_state(number, "RUNNING")
        one.lose_node("n1")
        one.wait_for_state(number, "PENDING")
        one.run("scancel", number)
        one.return_node("n1")
        assert one.run("srun", "--mem=100", "sh", "-c", "echo $SLURMD_NODENAME").strip() == "n1"


def test_what_is_missing_is_said_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("cluster.find", lambda program: None)
    monkeypatch.delenv("WILDMERGE_REQUIRE_SLURM", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"apt-get install .*slurm-wlm munge$"):
        require()
    monkeypatch.setenv("WILDMERGE_REQUIRE_SLURM", "1")
    with pytest.raises(pytest.fail.Exception, match=r"apt-get install .*slurmdbd"):
        require(accounting=True)
