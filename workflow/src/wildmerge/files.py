"""Files that are either whole or not there: atomic writes, digests, JSON."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError


def part_of(path: Path) -> Path:
    """The temporary name of a file or folder while it is made."""
    # One fixed name a target, so that the next try finds and clears what a killed job left.
    return path.with_name(f".{path.name}.part")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _atomic(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    path = Path(path)
    part = part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(part)
    make(part)
    try:
        yield part
    except BaseException:
        _remove(part)
        raise
    if path.is_dir():
        _remove(path)
    os.replace(part, path)


def atomic_file(path: str | Path) -> AbstractContextManager[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    On an error the temporary file is removed and `path` stays as it was.
    """
    return _atomic(Path(path), lambda part: None)


def atomic_folder(path: str | Path) -> AbstractContextManager[Path]:
    """Give an empty temporary folder beside `path`; rename it to `path` when the block ends well.

    On an error the temporary folder is removed; a folder that stood at `path` is replaced only
    when the new one is whole.
    """
    return _atomic(Path(path), lambda part: part.mkdir())


def check_name(name: object, where: str) -> str:
    """A file's name out of foreign data, if it stays in its folder and every disk can hold it.

    Args:
        name: relative, parts divided by `/`.
        where: what names it, for messages.

    Returns:
        The name.

    Raises:
        WildmergeError: it is absolute, leads upwards, has signs that are no text, or is too long.
    """
    # Temporary names add to a part's length, which most disks limit to 255 bytes.
    if not isinstance(name, str) or not all(
        part.isprintable() and part not in ("", ".", "..") and "\\" not in part and len(part) < 200
        for part in name.split("/")
    ):
        shown = repr(name) if len(repr(name)) < 100 else f"{repr(name)[:100]}..."
        raise WildmergeError(
            f"{where}: a file name below the folder was expected, found {shown}. Nothing is "
            "written there. Choose another revision or another source."
        )
    return name


def require_space(nbytes: int, folder: Path, where: str) -> None:
    """Raise WildmergeError if the disk of `folder` has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise WildmergeError(
            f"{where}: {nbytes / 1e9:.2f} GB are to be written, but the disk of {folder.parent} "
            f"has {free / 1e9:.2f} GB left. Make room, or run fewer jobs at a time, and run again."
        )


@contextmanager
def full_disk(where: str, output: Path) -> Iterator[None]:
    """Turn a disk that is full in the middle into a WildmergeError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise WildmergeError(
            f"{where}: the disk of {Path(output).parent} is full ({error.strerror}); nothing was "
            "kept of this job's output. Make room, or run fewer jobs at a time, and run again."
        ) from error


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as JSON, atomically; floats keep all their digits, NaN is refused."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def json_digest(value: object) -> str:
    """The sha256 of a value's canonical JSON, as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def stamps(files: Mapping[str, Path]) -> dict[str, list[int]]:
    """What a file system tells of files without their being read; links are followed.

    Whoever writes to a file changes its stamp, also where its time of modification is set back.

    Args:
        files: name -> path.

    Returns:
        Name -> [bytes, nanoseconds of the last modification, of the last change], which JSON keeps;
        an empty list for a file that is not there.
    """
    found: dict[str, list[int]] = {}
    for name, path in files.items():
        try:
            stat = path.stat()
        except OSError:
            found[name] = []
        else:
            found[name] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    return found


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
