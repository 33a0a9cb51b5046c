"""What is decided about jobs on Slurm, without one; tests/slurm has the rest on real daemons."""

import asyncio
import fcntl
import json
import os
import socket
from types import SimpleNamespace

import pytest
from wildmerge import WildmergeError, slurm

NOW = 2_000_000_000.0


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        (
            "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            True,
        ),
        (
            "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission "
            "failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time "
            "limits)",
            False,
        ),
        ("Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv", True),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not", False),
        ("sbatch: error: invalid partition specified: nono", False),
    ],
)
def test_a_refusal_passes_or_stays(words, passes):
    assert slurm.may_pass(words) == passes


def asked(minutes: int, mb: int, *limits: dict[str, int]) -> str:
    """What is asked of sbatch for a group of jobs with these limits."""
    jobs = [SimpleNamespace(resources=one) for one in limits]
    group = SimpleNamespace(jobs=jobs, is_group=lambda: True)
    call = f"sbatch --comment a -p gpu -t {minutes} --mem {mb} --ntasks=1"
    return slurm.capped(lambda job: call)(group).removeprefix("sbatch --comment a -p gpu ")


def test_no_job_asks_for_more_than_the_site_allows():
    limits = {"max_runtime": 2880, "max_mem_mb": 500_000}
    assert asked(2881, 900_000, limits, {}) == "-t 2880 --mem 500000 --ntasks=1"
    assert asked(30, 2000, limits) == "-t 30 --mem 2000 --ntasks=1"
    assert asked(9000, 9000, {}) == "-t 9000 --mem 9000 --ntasks=1"
    assert asked(100, 1, limits, {"max_runtime": 60}) == "-t 60 --mem 1 --ntasks=1"


def test_the_state_of_a_job_is_one_word():
    async def query(command, logger):
        return {"1": "CANCELLED by 1000", "2": "COMPLETED"}, 0.1

    told = asyncio.run(slurm.one_word(query)("sacct", None))
    assert told == ({"1": "CANCELLED", "2": "COMPLETED"}, 0.1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which a run of Snakemake was killed; Slurm has no jobs of it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "squeue").write_text("#!/bin/sh\n")
    (tools / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    sign("dead", NOW)
    for mark, number in {"a": '"7"', "b": "null"}.items():
        leave(f"incomplete/{mark}", f'{{"external_jobid": {number}}}')
    os.utime(leave("locks/0.input.lock"), (NOW - 60, NOW - 60))
    return tmp_path / ".snakemake"


def leave(path: str, text: str = "") -> str:
    """Write a file of Snakemake's; returns its path."""
    path = os.path.join(".snakemake", path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


def sign(run: str, last: float, host: str = "") -> str:
    """The file of a run that last gave a sign of life at a time."""
    who = json.dumps({"host": host or socket.gethostname(), "pid": 1})
    os.utime(path := leave(f"slurm-runs/{run}", who), (last, last))
    return path


def test_a_dead_run_leaves_what_is_whole_and_no_lock(folder):
    slurm.end_dead_runs(print)
    assert not list(folder.glob("slurm-runs/*")) and not list(folder.glob("locks/*"))
    # Of jobs on this machine it is not known whether their outputs are whole.
    assert [path.name for path in folder.glob("incomplete/*")] == ["b"]


def test_the_lock_of_a_later_run_stays(folder):
    os.utime(younger := leave("locks/1.input.lock"), (NOW + 60, NOW + 60))
    slurm.end_dead_runs(print)
    assert os.path.exists(younger) and not (folder / "locks/0.input.lock").exists()


def test_a_run_that_lives_is_left_alone(folder):
    with open(sign("alive", NOW)) as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        slurm.end_dead_runs(print)
    assert [path.name for path in folder.glob("slurm-runs/*")] == ["alive"]
    # Which of them holds Snakemake's own lock can't be said.
    assert list(folder.glob("locks/*"))


def test_a_run_elsewhere_is_dead_after_ten_minutes_of_silence(folder):
    path = sign("elsewhere", 0, "another-login-node")
    os.utime(path)
    with pytest.raises(WildmergeError, match=r"another-login-node was seen .* ago.*killed"):
        slurm.end_dead_runs(print)
    sign("elsewhere", NOW, "another-login-node")
    os.utime(path, (0, 0))
    slurm.end_dead_runs(print)
    assert not list(folder.glob("slurm-runs/*"))
