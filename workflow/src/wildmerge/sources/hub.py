"""A repository of the Hugging Face hub, at a commit."""

import os
import re
import shutil
from functools import partial
from pathlib import Path

from wildmerge import WildmergeError

from ._choose import choose_files
from ._source import Listing, Source, Wanted

_COMMIT = re.compile("[0-9a-f]{40}")


class Hub(Source):
    """A repository of the hub; its files are downloaded one by one and checked by their digests.

    Downloads go to a hidden folder beside the checkpoint, which outlives a failed try and is
    continued.
    """

    prefix = ""
    form = "`owner/name` on the Hugging Face hub"
    repo = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
    revision = "([0-9a-f]{40})?"
    revision_form = "A commit of 40 hexadecimal digits, or nothing (`make lock` finds it)."
    locked = True
    shared = True

    def fetch(self, wanted: Wanted) -> None:
        """Download what the checkpoint needs and make an ordinary one of it."""
        from wildmerge.checkpoints import convert

        from . import _hub_client as client

        repo, revision, folder = wanted.repo, wanted.revision, wanted.folder
        _check_locked(repo, revision)
        locked = wanted.files
        files = client.list_files(repo, revision).files if locked is None else locked
        names = choose_files(set(files), repo, partial(client.read, repo, revision), wanted.pickles)
        raw = folder.with_name(f".{folder.name}.download")
        # The small files come first, and with them most refusals.
        client.download_files(repo, revision, {name: files[name] for name in names}, raw)
        convert({name: raw / name for name in names}, folder, wanted.base, repo, _link)
        shutil.rmtree(raw)

    def listing(self, row: dict[str, str]) -> Listing:
        """The repository at the row's commit, or at the head of its main branch."""
        from . import _hub_client as client

        return client.list_files(row["repo"], row["revision"] or None)

    def mergekit_name(self, reference: str, folder: str) -> str:
        """The repository at its commit, from which anyone can repeat the merge."""
        return reference


def _check_locked(repo: str, revision: str) -> None:
    """Raise WildmergeError unless a hub row has a commit."""
    if not revision:
        raise WildmergeError(
            f"A commit was expected for {repo}, but its row in config/models.tsv has none and "
            "config/models.lock.json does not know it. Run `make lock` on a machine that reaches "
            "the hub: it records the present commit, sizes and digests of every row; commit the "
            "file."
        )
    if not _COMMIT.fullmatch(revision):
        raise WildmergeError(
            f"A commit of 40 hexadecimal digits was expected as the revision of {repo}, found "
            f"{revision!r}. Branches and tags move; empty the cell and run `make lock`."
        )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
