"""What is dear is made once for everybody: a store of outputs, shared by studies, clones, people.

An entry is named by the sha256 of all that decides its content: digests of the inputs, parameters,
the source of this package. So nothing stale is ever found, and nothing needs removing.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from wildmerge.files import atomic_file, atomic_folder, sha256_file, write_json

HIDDEN = ".snakemake_timestamp"


def content(path: str | Path) -> str:
    """The sha256 of a file, or of the names and contents of all files in a folder."""
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != HIDDEN)
    lines = [f"{sha256_file(file)} {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def source() -> list[str]:
    """The sha256 of each of this package's sources, and the versions of what does its work."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return [sha256_file(file) for file in sources] + [
        f"{name} {version(name)}" for name in ("lm-eval", "safetensors", "torch", "transformers")
    ]


def once(
    store: str | Path | None,
    key: dict,
    outputs: Iterable[str | Path],
    make: Callable[[], None],
) -> None:
    """Take the outputs from the store, or make them and leave them there for others.

    Who comes while another makes the same waits for it (a lock of the file system, which ends
    with the process that holds it). Files are copied out of the store, so that they stay when it
    goes; folders, which are large, become folders of links into it.

    Args:
        store: the folder shared by all; None to make the outputs and share nothing.
        key: all that decides the outputs apart from this package, inputs by their digests, see
            `content`; JSON values.
        outputs: paths of the files and folders that `make` makes; their names differ.
        make: makes the outputs.
    """
    if store is None:
        make()
        return
    outputs = [Path(output) for output in outputs]
    key = key | {"package": source()}
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
                for output in outputs:
                    # A folder is moved: two copies of a checkpoint would be one too many.
                    put = shutil.move if output.is_dir() else shutil.copy
                    put(output, part / output.name)
        for output in outputs:
            _take(entry / output.name, output)


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
            elif file.name != HIDDEN:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
