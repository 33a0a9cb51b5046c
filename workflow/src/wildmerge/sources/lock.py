"""The lock: which commit of each repository is used, and what its files must be.

models.tsv is written by people and stays as they order and comment it; the lock is written by
`make lock`, and is committed too: repository -> {revision, license, gated, files: name -> [bytes,
digest]}.
"""

from collections import Counter
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
    """Fill what the lock knows of hub rows: an empty `revision`, and the terms.

    Returns:
        The rows, what the sheet says itself as it stands, with `license` (as its card names it;
        "" where that is not known) and `gated` ("yes" or "").
    """
    return [_apply(row, lock) for row in rows]


def _apply(row: dict[str, str], lock: dict[str, dict]) -> dict[str, str]:
    entry = lock.get(row["repo"], {}) if source_of(row["repo"]).locked else {}
    revision = row["revision"] or entry.get("revision", "")
    known = entry if entry.get("revision") == revision else {}
    gated = "yes" if known.get("gated") else ""
    return row | {"revision": revision, "license": known.get("license", ""), "gated": gated}


def locked_files(row: dict[str, str], lock: dict[str, dict]) -> dict[str, list] | None:
    """The files of a row as locked, name -> [bytes, digest]; None if its revision is not locked."""
    entry = lock.get(row["repo"])
    return entry["files"] if entry and entry["revision"] == row["revision"] else None


def terms_of(rows: list[dict[str, str]]) -> str:
    """The licences of rows and which of them are gated, as lines for people.

    Args:
        rows: with `license` and `gated`, as `apply_lock` gives them; others are passed over.
    """
    hub = [row for row in rows if source_of(row["repo"]).locked]
    if not hub:
        return ""
    count = Counter(row["license"] or "not known" for row in hub)
    lines = [f"Licences: {', '.join(f'{name} ({n})' for name, n in sorted(count.items()))}."]
    if gated := sorted({row["repo"] for row in hub if row["gated"]}):
        lines.append(f"Gated, terms to accept before the download: {', '.join(gated)}.")
    return "\n".join(lines)
