"""What a source of checkpoints is: one class in one file of this folder."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from wildmerge import WildmergeError


@dataclass(frozen=True)
class Wanted:
    """A checkpoint that is to be brought.

    Attributes:
        repo: the cell `repo` of its row, prefix included.
        revision: what exactly is wanted, in the source's own form; "" where it has none.
        folder: where it shall stand.
        base: the base's checkpoint folder; None if this is the base.
        pickles: whether the sheet admits pickled weights, where there are no others.
        files: the lock's entry, name -> [bytes, digest]; None if it is not locked.
    """

    repo: str
    revision: str
    folder: Path
    base: Path | None = None
    pickles: bool = False
    files: Mapping[str, Sequence] | None = None


@dataclass(frozen=True)
class Listing:
    """What a source holds for a row, before anything is downloaded.

    Attributes:
        repo: its present name (a renamed repository differs from what was asked for).
        revision: what exactly is listed, such as a commit; "" where there is no such thing.
        files: name -> (bytes, digest); the digest may be "" where the source is never locked.
        read: (name, first, last) -> the bytes [first, last) of one file.
        license: as its model card names it, or "".
        gated: whether its owner lets only those have it who accept terms.
        remote: whether its bytes have to be downloaded.
        notes: what a preflight tells people of it.
    """

    repo: str
    revision: str
    files: dict[str, tuple[int, str]]
    read: Callable[[str, int, int], bytes]
    license: str = ""
    gated: bool = False
    remote: bool = True
    notes: list[str] = field(default_factory=list)

    def whole(self, name: str) -> bytes:
        """Read a small file."""
        return self.read(name, 0, self.files[name][0])


def is_whole(file: object) -> bool:
    """Whether a file's entry in the lock is [bytes, digest]."""
    match file:
        case [int(size), str(digest)]:
            return size >= 0 and bool(re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest))
    return False


class Source(ABC):
    """Where checkpoints come from. A class of one public module of this folder is all it takes.

    Modules of this folder are imported whenever the workflow is planned: import torch, transformers
    and whatever talks to a network inside the methods that need it.

    Attributes:
        prefix: what begins the cell `repo` of its rows, colon included; "" for one source alone.
        form: what stands in `repo`, for people.
        repo: a regular expression of the whole cell.
        revision: a regular expression of the whole cell `revision`.
        revision_form: what stands in `revision`, as a sentence for people.
        locked: whether an empty revision is filled from models.lock.json, which `make lock` writes
            from `listing`.
        shared: whether the same cells mean the same bytes on every machine, so that what it brings
            may be kept in the store that everybody shares.
        private: whether the cell `repo` is a path of somebody's machine, which is not passed on.
    """

    prefix: ClassVar[str]
    form: ClassVar[str]
    repo: ClassVar[str]
    revision: ClassVar[str] = ""
    revision_form: ClassVar[str] = "Nothing: it has no revision."
    locked: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    private: ClassVar[bool] = False

    def check(self, row: dict[str, str], where: str) -> None:
        """Hold a row of models.tsv against this source's own form of `repo` and `revision`.

        Args:
            row: the row.
            where: its place, for the message.

        Raises:
            WildmergeError: one of the two cells has another form.
        """
        forms = {"repo": (self.repo, f"{self.form}."), "revision": (self.revision, None)}
        for column, (pattern, meaning) in forms.items():
            if not re.fullmatch(pattern, row[column]):
                raise WildmergeError(
                    f"{where}, at {column}: {row[column]!r} does not match '^{pattern}$'. "
                    f"Expected: {meaning or self.revision_form} Correct it and run again."
                )

    def lacks(self, row: dict[str, str]) -> str:
        """What is known to be missing before a job asks for a row; "" if nothing is.

        Args:
            row: of models.tsv, its revision filled from the lock.
        """
        if self.locked and not row["revision"]:
            return "no revision yet: type `make lock`, look at config/models.lock.json, commit it"
        return ""

    def present(self, row: dict[str, str], folder: Path, tell: Callable[[str], None]) -> str:
        """The revision to bring: another one than before makes all that depends on it again.

        It is asked whenever the workflow is planned, so it has to be quick.

        Args:
            row: of models.tsv, its revision filled from the lock.
            folder: where the checkpoint stands here, or will stand.
            tell: takes a sentence for people about what changed.
        """
        return row["revision"]

    def named(self, repo: str) -> str:
        """The cell `repo` without the prefix."""
        return repo.removeprefix(self.prefix)

    @abstractmethod
    def fetch(self, wanted: Wanted) -> None:
        """Make the checkpoint folder `wanted.folder`; under that name it is whole.

        `wildmerge.checkpoints.conversions.convert` makes an ordinary checkpoint of files as they
        came.

        Raises:
            WildmergeError: access is refused, something is missing, damaged or cannot be made a
                checkpoint of the base's kind.
        """

    def listing(self, row: dict[str, str]) -> Listing | None:
        """What a preflight (and the lock) can see of a row; None if nothing can be seen of it.

        Raises:
            WildmergeError: it is not there, or access is refused.
        """
        return None

    def mergekit_name(self, reference: str, folder: str) -> str:
        """What mergekit loads to get the weights of a checkpoint that is merged as it came.

        Args:
            reference: `repo@revision`.
            folder: where the checkpoint stands here.
        """
        return folder
