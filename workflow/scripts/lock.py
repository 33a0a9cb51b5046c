"""Record the commit, sizes and digests of every hub repository of models.tsv (`make lock`).

Run from the workflow's folder; it asks the hub about what is not locked yet and downloads nothing.
"""

import sys
from pathlib import Path

import yaml
from wildmerge import WildmergeError
from wildmerge.files import write_json
from wildmerge.sources.lock import NAME, read_lock
from wildmerge.sources.registry import source_of
from wildmerge.sources.resolve import resolve_lock
from wildmerge.study.sheets import read_models

SCHEMA = Path(__file__).parents[1] / "schemas/models.schema.yaml"


def main(config: Path) -> int:
    """Bring the lock in `config` up to date; returns the exit code."""
    try:
        schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
        rows = read_models(config / "models.tsv", schema)
        lock, failed = resolve_lock(rows, read_lock(config / NAME))
    except WildmergeError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(config / NAME, lock)
    total = sum(size for entry in lock.values() for size, _ in entry["files"].values())
    wanted = len({row["repo"] for row in rows if source_of(row["repo"]).locked})
    print(f"{config / NAME}: {len(lock)} of {wanted} repositories, {total / 1e9:.1f} GB.")
    for message in failed:
        print(f"\nNot locked: {message}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path("config")))
