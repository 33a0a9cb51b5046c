"""Pin every hub repository of config/models.tsv: its commit, and sizes and digests of its files.

It writes config/models.lock.json, asks the hub only about what is not locked yet, and downloads
nothing. Commit the file.
"""

import argparse
import sys
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.home import home

EXAMPLE = """\
  wildmerge lock
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(arguments: argparse.Namespace) -> int:
    """Bring the lock in config/ up to date."""
    config = Path("config")
    if not config.is_dir():
        raise WildmergeError(
            f"A folder config/ was expected in {Path.cwd()}, but there is none. Go to the "
            "project's folder, or make one: `wildmerge new project FOLDER`."
        )
    return update(config)


def update(config: Path) -> int:
    """Lock what models.tsv in `config` names; 1 if a repository could not be locked, else 0."""
    from wildmerge.files import write_json
    from wildmerge.sources import LOCK, read_lock, resolve_lock, source_of
    from wildmerge.study import read_models
    from wildmerge.validation import read_yaml

    schema = read_yaml(home() / "workflow/schemas/models.schema.yaml")
    rows = read_models(config / "models.tsv", schema)
    lock, failed = resolve_lock(
        rows, read_lock(config / LOCK), save=lambda found: write_json(config / LOCK, found)
    )
    write_json(config / LOCK, lock)
    total = sum(size for entry in lock.values() for size, _ in entry["files"].values())
    wanted = len({row["repo"] for row in rows if source_of(row["repo"]).locked})
    print(f"{config / LOCK}: {len(lock)} of {wanted} repositories, {total / 1e9:.1f} GB.")
    for message in failed:
        print(f"\nNot locked: {message}", file=sys.stderr)
    return 1 if failed else 0
