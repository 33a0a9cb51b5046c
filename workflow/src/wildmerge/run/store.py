"""A store of costly outputs, made once and shared by studies, clones and people.

An entry is named by the sha256 of all that decides its content: digests of the inputs, parameters,
the source of the rooms of this package that make it. So an outdated entry is never used.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wildmerge.files import atomic_file, atomic_folder, sha256_file, write_json

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
) -> None:
    """Take the outputs from the store, or make them and leave them there for others.

    While one process makes an entry, others that need it wait (a lock of the file system, which
    ends with the process that holds it). Files are copied out of the store, so that they stay when
    it is removed; folders, which are large, become folders of links into it.

    Args:
        store: the folder shared by all; None to make the outputs and share nothing.
        key: all that decides the outputs apart from this package, inputs by their digests, see
            `content`; JSON values.
        outputs: paths of the files and folders that `make` makes; their names differ.
        make: makes the outputs.
        rooms: the parts of this package whose code decides the outputs, such as `evaluation`.
    """
    if store is None:
        make()
        return
    targets = [Path(output) for output in outputs]
    key = key | {"package": source(rooms)}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    entry = Path(store) / name[:2] / name
    entry.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{entry}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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
        for target in targets:
            _take(entry / target.name, target)


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
