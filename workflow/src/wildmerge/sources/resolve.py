"""Look up what models.lock.json does not hold yet; nothing is downloaded."""

from collections.abc import Callable

from wildmerge import WildmergeError

from ._choose import choose_files
from ._source import is_whole
from .registry import source_of


def resolve_lock(
    rows: list[dict[str, str]],
    lock: dict[str, dict],
    save: Callable[[dict[str, dict]], None] = lambda lock: None,
) -> tuple[dict[str, dict], list[str]]:
    """Look up what is not locked yet, each row at its own source.

    Args:
        rows: of models.tsv.
        lock: what is locked so far; entries stay unless the sheet names another revision (to move
            a repository on, delete its entry). One that lacks a size, a digest, the licence or
            the gate is looked up again, at its commit.
        save: called with all that is known whenever an entry was added.

    Returns:
        The new lock, sorted, and a message for every repository that could not be locked.
    """
    new: dict[str, dict] = {}
    failed: list[str] = []
    tried: set[str] = set()
    for row in rows:
        repo, revision, source = row["repo"], row["revision"], source_of(row["repo"])
        if not source.locked or repo in tried:
            continue
        tried.add(repo)
        entry = lock.get(repo)
        if entry and revision in ("", entry["revision"]):
            whole = all(map(is_whole, entry["files"].values()))
            if whole:
                new[repo] = entry
            if whole and {"license", "gated"} <= entry.keys():
                continue
            revision = entry["revision"]
        try:
            listing = source.listing(row | {"revision": revision})
            if listing is None:
                continue
            names = choose_files(set(listing.files), repo, listing.whole, pickles=True)
        except WildmergeError as error:
            failed.append(f"{row['base']}/{row['model']}: {error}")
            continue
        except Exception as error:  # what one repository holds must not cost the others
            failed.append(
                f"{row['base']}/{row['model']}: a checkpoint that can be read was expected in "
                f"{repo}, found another thing ({type(error).__name__}: {str(error)[:200]})."
            )
            continue
        new[repo] = {
            "revision": listing.revision,
            "license": listing.license,
            "gated": listing.gated,
            "files": {name: list(listing.files[name]) for name in sorted(names)},
        }
        save(dict(sorted((lock | new).items())))
    return dict(sorted(new.items())), failed
