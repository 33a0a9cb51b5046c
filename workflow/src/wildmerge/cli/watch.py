"""Show how far the latest run in this folder is: jobs done, running, failed and why, time left.

In a terminal it draws again every two seconds until the run ends; elsewhere it prints once. On
Slurm, jobs that wait in the queue are counted apart. Jobs under `again` failed and are tried again;
those under `failed` are not, and their logs are named.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wildmerge import WildmergeError
from wildmerge.slurm import ask

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from wildmerge.run import Progress

EXAMPLE = """\
  wildmerge watch
"""
LOGS = Path(".snakemake/log")
ASK_AGAIN = 20  # s between two questions to Slurm, whose controller is everybody's
SHOWN = 5  # failures; all of them stand at the end of the run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(arguments: argparse.Namespace) -> int:
    """Draw once where there is no terminal, else until the run has ended."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    progress = _latest()
    states = _states(progress)
    if not console.is_terminal:
        console.print(_table(progress, states))
        for failure in _failures(progress):
            console.print(failure, markup=False, soft_wrap=True)
        return 0
    asked = time.monotonic()
    with Live(_drawn(progress, states), console=console, auto_refresh=False) as live:
        while not progress.ended:
            time.sleep(2)
            progress = _latest()
            if time.monotonic() - asked > ASK_AGAIN:
                states, asked = _states(progress), time.monotonic()
            live.update(_drawn(progress, states), refresh=True)
    return 0


def _states(progress: "Progress") -> Mapping[str, str]:
    """Number of a job -> its state on Slurm; empty where it is not asked or doesn't answer."""
    from wildmerge.run import slurm_states

    if not progress.slurm or progress.ended:
        return {}
    rows = ask("squeue", "--name", progress.slurm, "--noheader", "--format=%i %T")
    return slurm_states(rows or "")


def _failures(progress: "Progress") -> list[str]:
    """The first few failures, and how many more there are."""
    from wildmerge.run import failures

    failed = failures(progress)
    more = [f"and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
    return failed[:SHOWN] + more


def _drawn(progress: "Progress", states: Mapping[str, str]) -> "Group":
    """The table, and what failed."""
    from rich.console import Group
    from rich.text import Text

    return Group(_table(progress, states), *map(Text, _failures(progress)))


def _latest() -> "Progress":
    """The run of the newest log in this folder."""
    from wildmerge.run import read_log

    logs = LOGS.glob("*.snakemake.log")
    newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise WildmergeError(
            f"A log of Snakemake was expected in {LOGS.resolve()}, none was found. Run a study."
        )
    return read_log(newest.read_text(encoding="utf-8", errors="replace"))


def _table(progress: "Progress", states: Mapping[str, str]) -> "Table":
    """A row a rule, and one for all."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    from wildmerge.run import waiting
    from wildmerge.words import duration

    rules = progress.rules.values()
    done, total = sum(rule.done for rule in rules), sum(rule.total for rule in rules)
    failed = sum(len(rule.failed) for rule in rules)
    left = "ended" if progress.ended else f"{duration(progress.seconds_left())} left"
    table = Table(title=f"{done} of {total} jobs done, {failed} failed, {left}")
    table.add_column("rule", no_wrap=True)
    for name in ("done", "running", "waiting", "again", "failed", "of"):
        table.add_column(name, justify="right")
    table.add_column("", width=30)
    for rule in rules:
        wait = waiting(progress, rule, states) if progress.slurm else 0
        running = len(rule.running) - wait
        counts = rule.done, running, wait, len(rule.again), len(rule.failed), rule.total
        cells = [str(count) if count else "" for count in counts]
        cells[4] = f"[red]{cells[4]}[/red]" if cells[4] else ""
        table.add_row(rule.name, *cells, ProgressBar(rule.total, rule.done, width=30))
    return table
