"""Weights on scratch go with the Slurm job that made them, and with no other."""

import os
import subprocess
import sys
from pathlib import Path

from cluster import wait_until
from runs import ROOT

MAKES = """
import sys, time
from pathlib import Path
from wildmerge.run import settle
scratch, name, seconds = sys.argv[1:]
model = Path(scratch, "wildmerge-aa/toy", name, "ties/model")
settle(scratch, model, patience=1)
(model / "weights").mkdir(parents=True)
print(name, "made", flush=True)
time.sleep(float(seconds))
"""


def there(scratch: Path) -> set[str]:
    """The draws whose weights lie on the disk."""
    return {path.parts[-3] for path in scratch.glob("wildmerge-aa/toy/*/*/model")}


def submit(cluster, scratch: Path, name: str, seconds: float = 0) -> str:
    """A job whose step makes weights and goes on for so long; returns its number."""
    script = scratch.parent / f"{name}.sh"
    step = f'srun {sys.executable} -c "$CODE" {scratch} {name}$SLURM_RESTART_COUNT {seconds}'
    script.write_text(f"#!/bin/sh\n{step}\n")
    env = {**cluster.env, "CODE": MAKES, "PYTHONPATH": str(ROOT / "workflow/src")}
    command = ["sbatch", "--parsable", "--mem=1000", "--requeue", f"--output={script}.log", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_weights_go_with_their_job(tmp_path, cluster):
    scratch = tmp_path / "scratch"
    killed = submit(cluster, scratch, "killed", 100)
    alive = submit(cluster, scratch, "alive", 100)
    again = submit(cluster, scratch, "again", 100)
    wait_until(lambda: there(scratch) == {"killed", "alive", "again"}, "weights of three", 60)
    cluster.run("scancel", "--signal=KILL", "--full", killed)
    # Queued again under its number: what it had is another's by now.
    cluster.run("scontrol", "requeue", again)
    cluster.wait_for_state(again, "PENDING")
    cluster.run("scontrol", "update", f"JobId={again}", "StartTime=now")
    wait_until(lambda: "again1" in there(scratch), "the job made its weights again", 90)
    wait_until(lambda: killed not in cluster.queue(), "the killed job gone", 60)
    cluster.wait_for_state(submit(cluster, scratch, "next"), "COMPLETED")
    assert there(scratch) == {"alive", "again1", "next"}
    assert "killed/ties, which a job that is gone left behind" in "".join(
        path.read_text() for path in tmp_path.glob("*.log")
    )
    cluster.run("scancel", alive, again)
    wait_until(lambda: not cluster.queue(), "jobs cancelled")
    # While Slurm can't be asked, nothing is removed.
    cluster.stop_controller()
    step = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "PYTHONPATH": str(ROOT / "workflow/src")}
    command = [sys.executable, "-c", MAKES, str(scratch), "mine", "0"]
    subprocess.run(command, env={**os.environ, **cluster.env, **step}, check=True)
    cluster.start_controller()
    assert there(scratch) == {"alive", "again1", "next", "mine"}
