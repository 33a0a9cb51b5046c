"""Look up what models.lock.json does not hold yet; nothing is downloaded."""

from wildmerge import WildmergeError

from ._choose import choose
from .registry import source_of


def resolve_lock(
    rows: list[dict[str, str]], lock: dict[str, dict]
) -> tuple[dict[str, dict], list[str]]:
    """Look up what is not locked yet, each row at its own source.

    Args:
        rows: of models.tsv.
        lock: what is locked so far; entries stay unless the sheet names another revision (to move
            a repository on, delete its entry).

    Returns:
        The new lock, sorted, and a message for every repository that could not be locked.
    """
    new: dict[str, dict] = {}
    failed = []
    for row in rows:
        repo, revision, source = row["repo"], row["revision"], source_of(row["repo"])
        if not source.locked or repo in new:
            continue
        entry = lock.get(repo)
        if entry and revision in ("", entry["revision"]):
            # An entry of before licences were recorded is looked up again, at its commit.
            if "license" in entry:
                new[repo] = entry
                continue
            revision = entry["revision"]
        try:
            listing = source.listing(row | {"revision": revision})
            if listing is None:
                continue
            names = choose(set(listing.files), repo, listing.whole, pickles=True)
        except WildmergeError as error:
            failed.append(f"{row['base']}/{row['model']}: {error}")
            continue
        new[repo] = {
            "revision": listing.revision,
            "license": listing.license,
            "files": {name: list(listing.files[name]) for name in sorted(names)},
        }
    return dict(sorted(new.items())), failed
