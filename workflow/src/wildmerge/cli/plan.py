"""Print what a study costs and what it can see, before it runs.

Costs are jobs, GPU-hours, disk and downloads: it asks Snakemake for a dry run, takes measured times
from benchmarks/ where there are any, and states what it assumes. Below stand the smallest
differences that the study's questions can show, by method, pair of methods and planned contrast,
and how many questions of each task are worth asking.
"""

import argparse
import re
import subprocess
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from wildmerge import WildmergeError
from wildmerge.cli.workflow import command
from wildmerge.home import config_folder, home

if TYPE_CHECKING:
    from wildmerge.study import Needs

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
        for suite in loaded.studies[target].get("suites", []):
            print(f"\n{_visible(needs, target, suite)}")
        if terms := terms_of(needs.study_models(target)):
            print(f"\n{terms}")
    return 0


def _visible(needs: "Needs", study: str, suite: str) -> str:
    """What a study can see on one of its suites."""
    from wildmerge.analysis import Facts, power, read_table
    from wildmerge.study import paths

    entry, recipes = needs.study(study), needs.sheets.study_recipes[study]
    tasks, unknown = power.tasks_of(needs.sheets.suites[suite], Path(f"resources/suites/{suite}"))
    if unknown:
        return (
            f"What suite {suite} can see is told once its questions are here: "
            f"`snakemake resources/suites/{suite}` brings them."
        )
    facts = Facts(**needs.declared(study))
    done = Path(paths.study(study, "comparisons.csv"))
    measured = read_table(done) if done.is_file() else None
    total = sum(task.questions for task in tasks)
    known = power.churns(recipes, entry.get("churn", {}), measured, total)
    merges = [e for e in needs.sheets.evaluations[study] if e.is_merge and e.suite == suite]
    each = len(merges) // max(1, len(recipes) * len(entry["bases"]))
    table = power.visible(tasks, known, each, facts.contrasts, len(merges))
    labels = {name: recipe["label"] for name, recipe in recipes.items()}
    return power.render(suite, tasks, table, facts.margin, labels)


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
