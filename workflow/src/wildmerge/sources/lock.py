"""The lock: which commit of each repository is used, and what its files must be.

models.tsv is written by people and stays as they order and comment it; the lock is written by
`make lock`, and is committed too: repository -> {revision, license, files: name -> [bytes,
digest]}.
"""

from pathlib import Path

from wildmerge.files import read_json

from .registry import source_of

LOCK = "models.lock.json"


def read_lock(path: str | Path) -> dict[str, dict]:
    """Read the lock; one that was never made is empty."""
    return read_json(path) if Path(path).exists() else {}


def takes_pickles(row: dict[str, str]) -> bool:
    """Whether the sheet admits pickled weights: its reason has to name them."""
    return "pickle" in row["admit"].lower()


def apply_lock(rows: list[dict[str, str]], lock: dict[str, dict]) -> list[dict[str, str]]:
    """Fill empty revisions of hub rows from the lock; what the sheet says itself stands."""
    return [
        row | {"revision": lock.get(row["repo"], {}).get("revision", "")}
        if source_of(row["repo"]).locked and not row["revision"]
        else row
        for row in rows
    ]


def locked_files(row: dict[str, str], lock: dict[str, dict]) -> dict[str, list] | None:
    """The files of a row as locked, name -> [bytes, digest]; None if its revision is not locked."""
    entry = lock.get(row["repo"])
    return entry["files"] if entry and entry["revision"] == row["revision"] else None


def license_of(row: dict[str, str], lock: dict[str, dict]) -> str:
    """The licence that a row's model card named when it was locked; "" where none is known."""
    entry = lock.get(row["repo"], {}) if source_of(row["repo"]).locked else {}
    return entry.get("license", "") if entry.get("revision") == row["revision"] else ""
