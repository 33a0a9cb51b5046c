"""A checkpoint in a folder of this machine."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.files import json_digest, read_json, sha256_file, stamps, write_json

from ._choose import choose_files
from ._source import Listing, Source, Wanted
from .lock import takes_pickles


class Folder(Source):
    """A folder that its owner keeps: nothing is copied, and nothing is the same everywhere."""

    prefix = "dir:"
    form = "`dir:path` for a folder of this machine (relative to the working directory)"
    repo = "dir:[^@+]+"
    revision_form = "A folder has no revision."
    private = True

    def fetch(self, wanted: Wanted) -> None:
        """Make a checkpoint of links into the folder, and of what has to be converted."""
        from wildmerge.checkpoints import convert

        source = Path(self.named(wanted.repo)).absolute()
        if not source.is_dir():
            raise WildmergeError(
                f"A checkpoint's folder was expected at {source} (row `{wanted.repo}` of "
                "config/models.tsv), but there is none. Correct the path or put it there."
            )
        files = _chosen(source, wanted.repo, wanted.pickles)
        before = stamps(files)
        # Links, not copies: the folder stays where its owner keeps it.
        convert(files, wanted.folder, wanted.base, wanted.repo, os.symlink)
        seen = {name: [*before[name], sha256_file(path)] for name, path in files.items()}
        if stamps(files) != before:
            shutil.rmtree(wanted.folder)
            raise WildmergeError(
                f"Files that stay as they are were expected in {source} (row `{wanted.repo}` of "
                "config/models.tsv), but some were written while they were read. Wait until the "
                "checkpoint is whole, and run again."
            )
        write_json(_record(wanted.folder), {"revision": wanted.revision, "files": seen})

    def present(self, row: dict[str, str], folder: Path, tell: Callable[[str], None]) -> str:
        """What its owner has put there since it was brought; "" while that is the same.

        Names, sizes and times are compared with those that `fetch` saw; contents only where times
        alone differ. A folder that is away for now is taken for what it was.
        """
        source, record = Path(self.named(row["repo"])).absolute(), _record(folder)
        if not record.exists():
            return ""
        kept = read_json(record)
        revision, seen = str(kept["revision"]), kept["files"]
        if not source.is_dir():
            return revision
        try:
            files = _chosen(source, row["repo"], takes_pickles(row))
        except WildmergeError:
            return "no checkpoint"  # the download says what is wrong
        now = stamps(files)
        if now == {name: entry[:-1] for name, entry in seen.items()}:
            return revision
        if not _same(files, now, seen):
            tell(
                f"{row['base']}/{row['model']}: the folder {source} holds other files than when "
                "its weights were last read. What depends on them is made again."
            )
            return json_digest(now)
        with suppress(OSError):
            touched = {name: [*now[name], entry[-1]] for name, entry in seen.items()}
            write_json(record, {"revision": revision, "files": touched})
        return revision

    def lacks(self, row: dict[str, str]) -> str:
        """The folder, where it is not there."""
        folder = Path(self.named(row["repo"])).absolute()
        there = folder.is_dir()
        return "" if there else f"no folder {folder}: correct the path or put the checkpoint there"

    def listing(self, row: dict[str, str]) -> Listing:
        """The files at the top of the folder."""
        folder = Path(self.named(row["repo"]))
        if not folder.is_dir():
            raise WildmergeError(f"A folder was expected at {folder}, but there is none.")

        def read(name: str, first: int, last: int) -> bytes:
            with open(folder / name, "rb") as file:
                file.seek(first)
                return file.read(last - first)

        paths = [path for path in folder.iterdir() if path.is_file()]
        files = {path.name: (path.stat().st_size, "") for path in paths}
        return Listing(row["repo"], "", files, read, remote=False)


def _chosen(source: Path, repo: str, pickles: bool) -> dict[str, Path]:
    """The files of a folder that make a checkpoint, name -> path; see `choose_files`."""
    there = {path.name for path in source.iterdir()}
    names = choose_files(there, repo, lambda name: (source / name).read_bytes(), pickles)
    return {name: source / name for name in names}


def _record(folder: Path) -> Path:
    """What was seen of the files when a checkpoint was brought: beside its folder."""
    return folder.with_name(f".{folder.name}.source.json")


def _same(files: Mapping[str, Path], now: Mapping[str, list], seen: Mapping[str, list]) -> bool:
    """Whether files hold what was seen; those whose stamps are the same are not read.

    Args:
        files: name -> path.
        now: name -> [bytes, modified, changed], see `files.stamps`.
        seen: the same with the sha256 at the end of each.
    """
    if now.keys() != seen.keys() or any(now[n][:1] != seen[n][:1] for n in now):
        return False
    doubtful = [name for name in now if now[name] != seen[name][:-1]]
    return all(sha256_file(files[name]) == seen[name][-1] for name in doubtful)
