"""Pin what comes from the hub: commits, and sizes and digests of files.

It writes config/models.lock.json, for the checkpoints of models.tsv, and config/datasets.lock.json,
for the benchmarks' data sets of suites.yaml. It asks the hub only about what is not locked yet, and
downloads nothing. Commit both files.
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
    """Lock what the sheets in `config` name; 1 if something could not be locked, else 0."""
    failed = [*_lock_models(config), *_lock_datasets(config)]
    for message in failed:
        print(f"\nNot locked: {message}", file=sys.stderr)
    return 1 if failed else 0


def _lock_models(config: Path) -> list[str]:
    """Lock the repositories of models.tsv; a message for each that could not be locked."""
    from wildmerge.files import write_json
    from wildmerge.sources import LOCK, read_lock, resolve_lock, source_of
    from wildmerge.study import read_models
    from wildmerge.validation import read_yaml

    path = config / LOCK
    schema = read_yaml(home() / "workflow/schemas/models.schema.yaml")
    rows = read_models(config / "models.tsv", schema)
    lock, failed = resolve_lock(rows, read_lock(path), lambda found: write_json(path, found))
    write_json(path, lock)
    wanted = len({row["repo"] for row in rows if source_of(row["repo"]).locked})
    print(f"{path}: {len(lock)} of {wanted} repositories, {_gigabytes(lock):.1f} GB.")
    return failed


def _lock_datasets(config: Path) -> list[str]:
    """Lock the data sets that suites.yaml takes from the hub; a message for each failure."""
    from wildmerge.files import write_json
    from wildmerge.sources import DATASETS_LOCK, read_lock, resolve_datasets
    from wildmerge.validation import read_yaml

    path, sheet = config / DATASETS_LOCK, config / "suites.yaml"
    suites = read_yaml(sheet) if sheet.is_file() else {}
    hub = {
        name: spec
        for name, spec in suites.items()
        if spec.get("source", "hub") == "hub"
        and not all("file" in t for t in spec["tasks"].values())
    }
    if not hub:
        return []
    from wildmerge.evaluation import datasets_of  # it reads all of lm-eval's tasks

    wanted: dict[str, list[str]] = {}
    for suite, spec in hub.items():
        for name in datasets_of(suite, spec):
            wanted.setdefault(name, []).append(suite)
    lock, failed = resolve_datasets(wanted, read_lock(path), lambda found: write_json(path, found))
    write_json(path, lock)
    print(f"{path}: {len(lock)} of {len(wanted)} data sets, {_gigabytes(lock):.1f} GB.")
    return failed


def _gigabytes(lock: dict[str, dict]) -> float:
    return sum(size for entry in lock.values() for size, _ in entry["files"].values()) / 1e9
