"""Merged weights on a disk: whose they are, what the dead left there, and room for the next.

A job that is killed leaves its weights, and on a node's own disk nobody comes back for them. So
each merge notes beside its weights who makes them, and removes those whose maker is gone. A Slurm
job makes, evaluates and removes its weights by itself: they go with it. Elsewhere what is whole
waits for the next run, and only what is half written goes with its process.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.files import part_of, read_json
from wildmerge.words import duration

_OWNER = "owner.json"  # in the folder that holds a merge's weights

Room = Callable[[int, Path, str], None]


def settle(scratch: str | None, output: str | Path, patience: float) -> Room:
    """Clean up after the dead, and note that this process makes weights.

    Args:
        scratch: the site's folder for merged weights; None where they lie among the results.
        output: the folder of weights to be made, below `scratch`.
        patience: seconds to wait for room.

    Returns:
        What waits until there is room for so many bytes in a folder, and says so; it takes a name
        of the work for messages, and raises WildmergeError where no room came.
    """
    root, output = Path(os.path.expandvars(scratch)) if scratch else None, Path(output)
    owner = _this_process() if root else {}
    if root:
        with _alone(root):
            clear(root)
            output.parent.mkdir(parents=True, exist_ok=True)
            # Locked as long as this process lives, and never closed.
            mark = os.open(output.parent / _OWNER, os.O_RDWR | os.O_CREAT, 0o644)
            with suppress(OSError):
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(mark, owner)

    def room(nbytes: int, folder: Path, where: str) -> None:
        end, said = time.monotonic() + patience, False
        while True:
            with _alone(root):
                if said and root:
                    clear(root)
                free = shutil.disk_usage(folder).free - (_promised(root) if root else 0)
                if free >= nbytes:
                    if root:
                        _write(mark, owner | {"bytes": nbytes})
                    return
            what = f"{where}: {nbytes / 1e9:.2f} GB are to be written, but the disk of {folder}"
            if time.monotonic() > end:
                raise WildmergeError(
                    f"{what} still had {free / 1e9:.2f} GB left for them after "
                    f"{duration(patience)}. Make room, or run fewer jobs at a time, and run again."
                )
            if not said:
                print(
                    f"{what} has {free / 1e9:.2f} GB left for them: waiting for other merges to be "
                    f"evaluated and removed, {duration(patience)} at most.",
                    flush=True,
                )
                said = True
            time.sleep(min(10, patience / 10))

    return room


def clear(root: Path) -> None:
    """Remove the weights below a folder that this user's dead jobs and processes left."""
    owners = {}
    for path in root.glob(f"wildmerge*/**/{_OWNER}"):
        with suppress(OSError, ValueError):
            if path.stat().st_uid == os.getuid():
                owners[path.parent] = read_json(path)
    jobs = _jobs() if any("job" in owner for owner in owners.values()) else {}
    for folder, owner in owners.items():
        model = folder / "model"
        if "job" in owner:
            dead = jobs is not None and jobs.get(owner["job"]) != owner["restarts"]
        else:
            dead = owner["host"] == socket.gethostname() and not _is_locked(folder / _OWNER)
        if dead and ("job" in owner or not model.exists()):
            print(f"Removing {folder}, which a job that is gone left behind.", flush=True)
            shutil.rmtree(folder, ignore_errors=True)


def _promised(root: Path) -> int:
    """Bytes that other merges below a folder are about to write."""
    bytes_left = 0
    for path in root.glob(f"wildmerge*/**/{_OWNER}"):
        with suppress(OSError, ValueError):
            part = part_of(path.parent / "model")
            if part.is_dir():
                there = sum(file.stat().st_blocks * 512 for file in part.iterdir())
                bytes_left += max(0, read_json(path).get("bytes", 0) - there)
    return bytes_left


def _this_process() -> dict[str, Any]:
    """Who makes the weights: a Slurm job of Snakemake's (which is a step), else a process."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and os.environ.get("SLURM_STEP_ID"):
        jobs = _jobs()
        if jobs and job in jobs:
            return {"job": job, "restarts": jobs[job]}
    return {"host": socket.gethostname()}


def _write(mark: int, owner: dict[str, Any]) -> None:
    """Write who makes weights into the open file, which keeps its lock."""
    text = json.dumps(owner).encode()
    os.pwrite(mark, text, 0)
    os.ftruncate(mark, len(text))


def _is_locked(path: Path) -> bool:
    """Whether a process of this machine still holds a file, or whether that can't be known."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _jobs() -> dict[str, int] | None:
    """This user's jobs on nodes: number -> how often each was queued again; None if unknown."""
    states = "RUNNING,COMPLETING,SUSPENDED,STOPPED,CONFIGURING"
    command = ["squeue", "--me", "--noheader", f"--states={states}"]
    try:
        done = subprocess.run(
            [*command, "--Format=JobID:20,RestartCnt:20"], capture_output=True, text=True
        )
    except OSError:
        return None
    if done.returncode:
        return None
    rows = (line.split() for line in done.stdout.splitlines())
    return {job: int(restarts) for job, restarts in rows}


@contextmanager
def _alone(root: Path | None) -> Iterator[None]:
    """One process at a time looks for the dead and for room, where the disk has such locks."""
    if root is None:
        yield
        return
    root.mkdir(parents=True, exist_ok=True)
    lock = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
