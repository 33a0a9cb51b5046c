"""The lock: which commit of each hub repository is used, and what its files must be.

models.tsv is written by people and stays as they order and comment it; the lock is written by
`make lock`, and is committed too: repository -> {revision, license, files: name -> [bytes,
digest]}.
"""

from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.files import read_json

NAME = "models.lock.json"


def read_lock(path: str | Path) -> dict[str, dict]:
    """Read the lock; one that was never made is empty."""
    return read_json(path) if Path(path).exists() else {}


def is_hub(row: dict) -> bool:
    """Whether a row of models.tsv names a repository of the hub."""
    return ":" not in row["repo"]


def takes_pickles(row: dict) -> bool:
    """Whether the sheet admits pickled weights: its reason has to name them."""
    return "pickle" in row["admit"].lower()


def apply_lock(rows: list[dict], lock: dict[str, dict]) -> list[dict]:
    """Fill empty revisions of hub rows from the lock; what the sheet says itself stands."""
    return [
        row | {"revision": lock.get(row["repo"], {}).get("revision", "")}
        if is_hub(row) and not row["revision"]
        else row
        for row in rows
    ]


def locked_files(row: dict, lock: dict[str, dict]) -> dict[str, list] | None:
    """The files of a row as locked, name -> [bytes, digest]; None if its revision is not locked."""
    entry = lock.get(row["repo"])
    return entry["files"] if entry and entry["revision"] == row["revision"] else None


def license_of(row: dict, lock: dict[str, dict]) -> str:
    """The licence that a row's model card named when it was locked; "" where none is known."""
    entry = lock.get(row["repo"], {}) if is_hub(row) else {}
    return entry.get("license", "") if entry.get("revision") == row["revision"] else ""


def resolve(rows: list[dict], lock: dict[str, dict]) -> tuple[dict[str, dict], list[str]]:
    """Look up what is not locked yet.

    rows: of models.tsv. lock: what is locked so far; entries stay unless the sheet names another
    revision (to move a repository on, delete its entry). Returns the new lock, sorted, and a
    message for every repository that could not be locked.
    """
    from wildmerge.sources import hub_client as hub
    from wildmerge.sources.fetch import choose

    new, failed = {}, []
    for row in rows:
        repo, revision = row["repo"], row["revision"]
        if not is_hub(row) or repo in new:
            continue
        entry = lock.get(repo)
        if entry and revision in ("", entry["revision"]):
            # An entry of before licences were recorded is looked up again, at its commit.
            if "license" in entry:
                new[repo] = entry
                continue
            revision = entry["revision"]
        try:
            listing = hub.list_files(repo, revision or None)
            names = choose(
                set(listing.files),
                repo,
                lambda name, at=listing: hub.read(at.repo, at.revision, name),
                pickles=True,
            )
        except WildmergeError as error:
            failed.append(f"{row['base']}/{row['model']}: {error}")
            continue
        new[repo] = {
            "revision": listing.revision,
            "license": listing.license,
            "files": {name: list(listing.files[name]) for name in sorted(names)},
        }
    return dict(sorted(new.items())), failed
