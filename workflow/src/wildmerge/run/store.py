"""A store of costly outputs, made once and shared by studies, clones and people.

An entry is named by the sha256 of all that decides its content: digests of the inputs, parameters,
the source of the rooms of this package that make it. So an outdated entry is never used.
"""

import fcntl
import getpass
import hashlib
import json
import math
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.files import atomic_file, atomic_folder, sha256_file, write_json
from wildmerge.words import duration

_HIDDEN = ".snakemake_timestamp"  # Snakemake's own mark in a folder


def content(path: str | Path) -> str:
    """The sha256 of a file, or of the names and contents of all files in a folder."""
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != _HIDDEN)
    lines = [f"{sha256_file(file)} {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def source(rooms: tuple[str, ...]) -> list[str]:
    """The sha256 of each source file of some rooms, and the versions of what does their work."""
    package = Path(__file__).parents[1]
    files = [file for room in rooms for file in sorted((package / room).rglob("*.py"))]
    return [sha256_file(file) for file in files] + [
        f"{name} {version(name)}" for name in ("lm-eval", "safetensors", "torch", "transformers")
    ]


def once(
    store: str | Path | None,
    key: dict[str, Any],
    outputs: Iterable[str | Path],
    make: Callable[[], Any],
    rooms: tuple[str, ...],
    patience: float = math.inf,
) -> None:
    """Take the outputs from the store, or make them and leave them there for others.

    While one process makes an entry, others that need it wait (a lock of the file system, which
    ends with the process that holds it). Files are copied out of the store, so that they stay when
    it is removed; folders, which are large, become folders of links into it. Who may read and
    write the store's folder may so with all that is in it, whatever the umask of its maker.

    Args:
        store: the folder shared by all; None to make the outputs and share nothing.
        key: all that decides the outputs apart from this package, inputs by their digests, see
            `content`; JSON values.
        outputs: paths of the files and folders that `make` makes; their names differ.
        make: makes the outputs.
        rooms: the parts of this package whose code decides the outputs, such as `evaluation`.
        patience: seconds to wait for another's entry, since who waits may hold a GPU; then the
            outputs are made here, and not shared.

    Raises:
        WildmergeError: this user may not write to the store.
    """
    if store is None:
        make()
        return
    targets = [Path(output) for output in outputs]
    key = key | {"package": source(rooms)}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    entry = Path(store) / name[:2] / name
    Path(store).mkdir(parents=True, exist_ok=True)
    try:
        lock = _lock(Path(f"{entry}.lock"), patience)
    except PermissionError as error:
        raise WildmergeError(
            f"{_user()} was expected to write to the shared store {store}, but may not write "
            f"{error.filename}. With GROUP, a group of all who share it, its owners type: "
            f"chgrp -R GROUP {store}; chmod -R g+rwX {store}; "
            f"find {store} -type d -exec chmod g+s {{}} + -- then run again."
        ) from error
    if lock is None:
        print(f"Not there after {duration(patience)}: it is made here, for this study alone.")
        make()
        return
    try:
        if entry.exists():
            print(f"Found in the shared store: {entry}", flush=True)
        else:
            make()
            with atomic_folder(entry) as part:
                write_json(part / "key.json", key)
                for target in targets:
                    # A folder is moved: two copies of a checkpoint would be one too many.
                    if target.is_dir():
                        shutil.move(target, part / target.name)
                    else:
                        shutil.copy(target, part / target.name)
                _open_up(part, Path(store))
        for target in targets:
            _take(entry / target.name, target)
    finally:
        os.close(lock)


def _lock(path: Path, patience: float) -> int | None:
    """Lock an entry, which may not be there yet; None if another still holds it after so long."""
    access = _access(path.parents[1])
    umask = os.umask(0)
    try:
        path.parent.mkdir(mode=access, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, access & 0o666)
    finally:
        os.umask(umask)
    end, said = time.monotonic() + patience, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(lock)
                return None
            if not said:
                holder = os.pread(lock, 200, 0).decode(errors="replace") or "another job"
                most = "" if patience == math.inf else f", {duration(patience)} at most"
                print(f"Waiting for {holder}, which makes {path.stem}{most}.", flush=True)
                said = True
            time.sleep(min(1, patience / 10))
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{_user()} on {socket.gethostname()}".encode(), 0)
            return lock


def _user() -> str:
    """Who runs this, by name; by number where a container knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _access(folder: Path) -> int:
    """Who may read, write and enter a folder, as chmod takes it."""
    return stat.S_IMODE(folder.stat().st_mode)


def _open_up(made: Path, store: Path) -> None:
    """Give a folder and all in it the group and the access of the store's folder."""
    access, group = _access(store), store.stat().st_gid
    for path in [made, *made.rglob("*")]:
        if not path.is_symlink():
            with suppress(PermissionError):  # no member of that group: what all may do stays
                os.chown(path, -1, group)
            path.chmod(access if path.is_dir() else access & 0o666)


def _take(kept: Path, output: Path) -> None:
    """Copy a kept file to `output`, or make `output` a folder of links into a kept folder."""
    if kept.is_file():
        with atomic_file(output) as part:
            shutil.copy(kept, part)
        return
    with atomic_folder(output) as part:
        for file in kept.rglob("*"):
            link = part / file.relative_to(kept)
            if file.is_dir():
                link.mkdir(parents=True, exist_ok=True)
            elif file.name != _HIDDEN:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
