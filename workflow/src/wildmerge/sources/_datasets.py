"""The benchmarks' data sets: pinned in a lock of their own, brought by their commit and digests.

`make lock` writes config/datasets.lock.json, which is committed: data set -> {revision, license,
gated, suites: the suites that ask it, files: name -> [bytes, digest]}.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from wildmerge import WildmergeError

from ._source import is_whole

DATASETS_LOCK = "datasets.lock.json"


def pins_of(suite: str, lock: Mapping[str, dict]) -> dict[str, dict]:
    """What a suite's questions depend on: data set -> {revision, files}."""
    return {
        name: {"revision": entry["revision"], "files": entry["files"]}
        for name, entry in lock.items()
        if suite in entry["suites"]
    }


def resolve_datasets(
    wanted: Mapping[str, list[str]],
    lock: dict[str, dict],
    save: Callable[[dict[str, dict]], None] = lambda lock: None,
) -> tuple[dict[str, dict], list[str]]:
    """Look up what is not locked yet; nothing is downloaded.

    Args:
        wanted: data set -> the suites that ask it.
        lock: what is locked so far; it stays (to move a data set on, delete its entry).
        save: called with all that is known whenever an entry was added.

    Returns:
        The new lock, sorted, and a message for every data set that could not be locked.
    """
    from . import _hub_client as client

    new: dict[str, dict] = {}
    failed = []
    for name, suites in sorted(wanted.items()):
        entry = lock.get(name)
        if entry and all(map(is_whole, entry["files"].values())):
            new[name] = entry | {"suites": suites}
            continue
        try:
            revision = entry["revision"] if entry else None
            listing = client.list_files(name, revision, kind="dataset")
        except WildmergeError as error:
            failed.append(f"data set {name}: {error}")
            continue
        new[name] = {
            "revision": listing.revision,
            "license": listing.license,
            "gated": listing.gated,
            "suites": suites,
            "files": {file: list(listing.files[file]) for file in sorted(listing.files)},
        }
        save(dict(sorted((lock | new).items())))
    return new, failed


def fetch_dataset(name: str, pins: Mapping[str, dict], folder: Path) -> None:
    """Bring a data set's files, as they are locked, from the hub and never from a cache.

    Args:
        name: `owner/name`.
        pins: as `pins_of` gives them.
        folder: where to; what an earlier try left there is continued.

    Raises:
        WildmergeError: it is not locked, access is refused, or a file is missing or damaged.
    """
    from . import _hub_client as client

    if name not in pins:
        raise WildmergeError(
            f"A commit was expected for the data set {name} in config/{DATASETS_LOCK}, but it is "
            "not there. Run `make lock` on a machine that reaches the hub, and commit the file."
        )
    pin = pins[name]
    # What tells git how to store files is no part of the data.
    files = {file: pin["files"][file] for file in pin["files"] if file != ".gitattributes"}
    client.download_files(name, pin["revision"], files, folder, kind="dataset")
