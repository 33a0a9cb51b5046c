"""A GPU a job: locked, the only one seen, and missed where it is granted and not there."""

import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
import yte
from project import ROOT, Project
from wildmerge.run import devices
from wildmerge.run.devices import VISIBLE, device

SMI = """#!/bin/sh
echo "GPU 0: NVIDIA RTX A6000 (UUID: GPU-0b)"
echo "GPU 1: NVIDIA RTX A6000 (UUID: GPU-1c)"
echo "GPU 2: NVIDIA RTX A6000 (UUID: GPU-2d)"
"""


@pytest.fixture
def three_cards(tmp_path, monkeypatch):
    """A machine of three cards, a torch for CUDA, and locks of its own."""
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin/nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(smi.parent))
    monkeypatch.setattr(devices, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(devices, "version", lambda name: "2.13.0+cu130")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cu130")
    for name in (VISIBLE, "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


def profile() -> dict:
    """What profiles/default says here, where no sbatch is on PATH."""
    with (ROOT / "profiles/default/config.yaml").open() as file:
        return yte.process_yaml(file, require_use_yte=True)


def test_the_driver_counts_unless_slurm_or_the_user_has(three_cards, monkeypatch):
    assert devices.devices() == ["0", "1", "2"]
    for granted, names in (("2", ["2"]), ("GPU-1c, 0", ["GPU-1c", "0"]), ("", []), ("-1", [])):
        monkeypatch.setenv(VISIBLE, granted)
        assert devices.devices() == names
    monkeypatch.delenv(VISIBLE)
    monkeypatch.setattr(devices, "version", lambda name: "2.13.0+cpu")
    assert devices.devices() == []


def _hold(queue):
    with device(1) as name:
        queue.put((time.monotonic(), "start", name, os.environ[VISIBLE]))
        time.sleep(0.3)
        queue.put((time.monotonic(), "end", name, os.environ[VISIBLE]))


def test_nine_jobs_of_a_workstation_share_three_cards(three_cards):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_hold, args=(queue,)) for _ in range(9)]
    for process in processes:
        process.start()
    events = sorted(queue.get(timeout=60) for _ in range(18))
    for process in processes:
        process.join()
    holds: dict[str, list[str]] = {}
    for _, event, name, seen in events:
        assert seen == name
        holds.setdefault(name, []).append(event)
    # One at a time on each, and all three at work.
    assert sorted(holds) == ["0", "1", "2"]
    assert all(found == ["start", "end"] * (len(found) // 2) for found in holds.values())
    assert not list(devices.LOCKS.iterdir())


def test_a_lock_ends_with_its_process(three_cards, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    killed = context.Process(target=_hold, args=(queue,))
    killed.start()
    queue.get(timeout=60)
    killed.kill()
    killed.join()
    with device(1) as name:
        assert name == "0"


def test_who_asks_for_none_sees_none(three_cards):
    with device(0) as name:
        assert (name, os.environ[VISIBLE]) == (None, "")
    assert VISIBLE not in os.environ


def test_jobs_of_slurm_do_not_wait_for_each_other(three_cards, monkeypatch):
    """Each has GPUs of its own; both may call theirs 0."""
    monkeypatch.setenv(VISIBLE, "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with device(1) as first:
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        monkeypatch.setenv(VISIBLE, "0")
        with device(1) as second:
            assert first == second == "0"


def test_the_profile_of_a_workstation_runs_a_job_a_card(three_cards, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(13))
    assert profile()["resources"] == {"gpu": 3}
    # And a share of the cores for each.
    assert profile()["set-threads"]["evaluate"] == 4
    monkeypatch.setenv(VISIBLE, "0,2")
    assert profile()["resources"] == {"gpu": 2}
    monkeypatch.setenv(VISIBLE, "")
    assert "resources" not in profile()


def job(tmp_path, gpus: int, **environment: str) -> subprocess.CompletedProcess:
    """A job of one line in a process of its own."""
    code = (
        f"from wildmerge.run import job\nwith job({str(tmp_path / 'log')!r}, 'a job', 1, {gpus}):"
        "\n    import torch; print('works on', 'cuda' if torch.cuda.is_available() else 'cpu')"
    )
    env = Project.env() | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_a_granted_gpu_that_torch_does_not_see_ends_the_job_at_once(tmp_path):
    granted = {VISIBLE: "99", "SLURM_JOB_ID": f"test-{os.getpid()}"}
    done = job(tmp_path, 1, **granted)
    assert done.returncode == 1 and "works on" not in done.stderr
    assert "A GPU was granted to this job (CUDA_VISIBLE_DEVICES=99 on" in done.stderr
    assert "nvidia-smi" in done.stderr and "WILDMERGE_DEVICE=cpu" in done.stderr
    # Who wants the CPU, and who asks for no GPU, works.
    assert "works on cpu" in job(tmp_path, 1, WILDMERGE_DEVICE="cpu", **granted).stderr
    assert "works on cpu" in job(tmp_path, 0, **granted).stderr
