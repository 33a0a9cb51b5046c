"""Print what a study costs before it runs: jobs, GPU-hours, disk and downloads.

It asks Snakemake for a dry run, takes measured times from benchmarks/ where there are any, and
states what it assumes.
"""

import argparse
import re
import subprocess
from pathlib import Path
from statistics import median

from wildmerge import WildmergeError
from wildmerge.cli.workflow import command
from wildmerge.home import config_folder, home

EXAMPLE = """\
  wildmerge plan wild
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study."""
    parser.add_argument("study", metavar="STUDY", help="a study, or any other target")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    from wildmerge.run import cost
    from wildmerge.sources import terms_of
    from wildmerge.study import Needs, paths, sheets
    from wildmerge.validation import read_yaml

    config = config_folder()
    loaded = sheets.load(config, home() / "workflow/schemas")
    target = arguments.study
    if "/" not in target and target not in sheets.rule_names():
        Needs(loaded, paths.Scratch()).study(target)
    times = cost.times(loaded, read_yaml(config / "config.yaml")["backend"], median)
    jobs = cost.read_dry_run(_dry_run(target))
    print(cost.render(target, cost.estimate(jobs, times), jobs, times.gb, _disk_limit()))
    if target in loaded.studies:
        needs = Needs(loaded, paths.Scratch())
        if terms := terms_of(needs.study_models(target)):
            print(f"\n{terms}")
    return 0


def _dry_run(target: str) -> str:
    """What `snakemake TARGET -n` prints.

    Raises:
        WildmergeError: with Snakemake's last words, where the dry run fails.
    """
    done = subprocess.run(command("-n", target), capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join((done.stdout + done.stderr).split()[-60:])
        raise WildmergeError(f"A dry run of {target} was expected to succeed, it ended in: {words}")
    return done.stdout + done.stderr


def _disk_limit() -> float:
    """GB of merged weights that the cluster profile lets lie on disk at a time."""
    own = Path("profiles/slurm/config.yaml")
    profile = own if own.is_file() else home() / own
    limit = re.search(r"^  disk_mb: (\d+)", profile.read_text("utf-8"), flags=re.MULTILINE)
    if limit is None:
        raise WildmergeError(
            f"{profile}: a line `disk_mb: NUMBER` was expected under `resources`, found none. "
            "Write how many MB of merged weights may lie on disk at a time."
        )
    return int(limit[1]) / 1000
