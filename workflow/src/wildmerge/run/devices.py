"""One GPU a job: held by a lock of the file system, and the only one that the job sees.

Snakemake and Slurm count the GPUs of a machine or of a job, they do not hand them to the jobs that
run there side by side.
"""

import fcntl
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path

from wildmerge import WildmergeError

VISIBLE = "CUDA_VISIBLE_DEVICES"
# A folder that all jobs of a machine see, and those of no other.
LOCKS = Path("/tmp/wildmerge-gpus")
# What Slurm and people write there for none.
_NONE = ("", "-1", "NoDevFiles")


def devices() -> list[str]:
    """The GPUs that jobs may use here, by the names that CUDA_VISIBLE_DEVICES takes.

    Those granted by Slurm or named by the user, else all that the driver lists; none of the latter
    where torch is a build for CPUs, which `make env` chooses for cards that torch has dropped.
    """
    granted = os.environ.get(VISIBLE)
    if granted is not None:
        return [name for name in map(str.strip, granted.split(",")) if name not in _NONE]
    if version("torch").endswith("+cpu"):
        return []
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except OSError:
        return []
    return re.findall(r"^GPU (\d+):", done.stdout, flags=re.MULTILINE)


@contextmanager
def device(wanted: int) -> Iterator[str | None]:
    """Hold one GPU while the block runs, and let CUDA see that one alone; or let it see none.

    Call it before the process first uses CUDA, which reads the variable once. Where all GPUs are
    held by other jobs it says so and waits; a lock ends with the process that holds it.

    Args:
        wanted: 0 for a job that asks for none. More than one is taken as one.

    Yields:
        The GPU's name, None where the job asked for none or there is none.
    """
    before = os.environ.get(VISIBLE)
    names = devices() if wanted else []
    with _one_of(names) if names else nullcontext() as name:
        os.environ[VISIBLE] = name or ""
        try:
            yield name
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def require_seen(name: str) -> None:
    """Make sure that torch sees the GPU that the job holds: without it, it would work on a CPU.

    Raises:
        WildmergeError: torch sees none.
    """
    import torch

    if torch.cuda.is_available():
        return
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for CPUs"
    error = WildmergeError(
        f"A GPU was granted to this job ({VISIBLE}={name} on {socket.gethostname()}), but torch "
        f"{torch.__version__}, which {built}, sees none. Nothing was computed. Type `nvidia-smi` "
        "on that machine: if it fails, the driver is the site's to repair, and the node can be "
        "left out (Slurm: --exclude); if it lists the card, run `make env` there, which takes the "
        "build of torch that fits card and driver. To compute on the CPU all the same, set "
        "WILDMERGE_DEVICE=cpu."
    )
    error.may_pass = True  # on another node
    raise error


@contextmanager
def _one_of(names: Sequence[str]) -> Iterator[str]:
    """Hold the lock of the first GPU that is free."""
    with suppress(FileExistsError):
        LOCKS.mkdir()
        LOCKS.chmod(0o1777)
    # A job of Slurm's has GPUs of its own, under names that other jobs of the node may have, too.
    whose = os.environ.get("SLURM_JOB_ID", "machine")
    paths = {LOCKS / re.sub(r"[^\w.-]", "_", f"{whose}-{name}"): name for name in names}
    said = False
    while True:
        for path, name in paths.items():
            if (lock := _lock(path)) is None:
                continue
            try:
                yield name
            finally:
                with suppress(OSError):  # that of another user's job that was killed
                    path.unlink()
                os.close(lock)
            return
        if not said:
            print(
                f"Waiting for a GPU: other jobs hold all of {', '.join(names)} on "
                f"{socket.gethostname()} (`fuser -v {LOCKS}/{whose}-*` names them).",
                flush=True,
            )
            said = True
        time.sleep(1)


def _lock(path: Path) -> int | None:
    """Lock a file, which is made, or left by a job of any user; None if another job holds it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        try:
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have removed it meanwhile: then it locks nothing.
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None
