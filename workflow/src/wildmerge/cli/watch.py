"""Show how far the latest run in this folder is: jobs done, running, failed, and the time left.

In a terminal it draws again every two seconds until the run ends; elsewhere it prints once.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wildmerge import WildmergeError

if TYPE_CHECKING:
    from rich.table import Table

    from wildmerge.run import Progress

EXAMPLE = """\
  wildmerge watch
"""
LOGS = Path(".snakemake/log")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(arguments: argparse.Namespace) -> int:
    """Draw once where there is no terminal, else until the run has ended."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    progress = _latest()
    if not console.is_terminal:
        console.print(_table(progress))
        return 0
    with Live(_table(progress), console=console, auto_refresh=False) as live:
        while not progress.ended:
            time.sleep(2)
            progress = _latest()
            live.update(_table(progress), refresh=True)
    return 0


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


def _table(progress: "Progress") -> "Table":
    """A row a rule, and one for all."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    from wildmerge.words import duration

    rules = progress.rules.values()
    done, total = sum(rule.done for rule in rules), sum(rule.total for rule in rules)
    failed = sum(len(rule.failed) for rule in rules)
    left = "ended" if progress.ended else f"{duration(progress.seconds_left())} left"
    table = Table(title=f"{done} of {total} jobs done, {failed} failed, {left}")
    table.add_column("rule", no_wrap=True)
    for name in ("done", "running", "failed", "of"):
        table.add_column(name, justify="right")
    table.add_column("", width=30)
    for rule in rules:
        counts = rule.done, len(rule.running), len(rule.failed), rule.total
        cells = [str(count) if count else "" for count in counts]
        cells[2] = f"[red]{cells[2]}[/red]" if cells[2] else ""
        table.add_row(rule.name, *cells, ProgressBar(rule.total, rule.done, width=30))
    return table
