"""Bring a checkpoint of models.tsv to this machine, whole or not at all.

Whatever comes is made an ordinary safetensors checkpoint of its base's shapes, and what was done
for that stands in `conversions.json` beside it.
"""

from pathlib import Path

from ._source import Wanted
from .registry import source_of


def fetch_checkpoint(
    repo: str,
    revision: str,
    folder: str | Path,
    base: str | Path | None = None,
    pickles: bool = False,
    files: dict[str, list] | None = None,
) -> None:
    """Make the checkpoint folder `folder`; under that name it is whole.

    Args:
        repo: as in models.tsv, such as `owner/name` on the hub or `dir:path`.
        revision: what exactly is wanted, in the source's own form, or "".
        folder: where it shall stand.
        base: the base's checkpoint folder; None if this is the base.
        pickles: whether the sheet admits pickled weights, where there are no others.
        files: the lock's entry, name -> [bytes, digest]; None asks the source.

    Raises:
        WildmergeError: the row is not locked, access is refused, something is missing, damaged or
            cannot be made a checkpoint of the base's kind.
    """
    own_base = None if base is None else Path(base)
    source_of(repo).fetch(Wanted(repo, revision, Path(folder), own_base, pickles, files))
