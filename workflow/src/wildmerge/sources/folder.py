"""A checkpoint in a folder of this machine."""

import os
from pathlib import Path

from wildmerge import WildmergeError

from ._choose import choose_files
from ._source import Listing, Source, Wanted


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
        names = choose_files(
            {path.name for path in source.iterdir()},
            wanted.repo,
            lambda name: (source / name).read_bytes(),
            wanted.pickles,
        )
        # Links, not copies: the folder stays where its owner keeps it.
        files = {name: source / name for name in names}
        convert(files, wanted.folder, wanted.base, wanted.repo, os.symlink)

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
