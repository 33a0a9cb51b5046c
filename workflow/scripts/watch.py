"""Show how far the latest run in this folder is: `make watch`. Ends with the run, or by Ctrl-C."""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from wildmerge.run.progress import Progress, read
from wildmerge.words import duration

LOGS = Path(".snakemake/log")


def latest() -> Progress:
    """The run of the newest log in this folder."""
    logs = LOGS.glob("*.snakemake.log")
    newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        sys.exit(
            f"A log of Snakemake was expected in {LOGS.resolve()}, none was found. Run a study."
        )
    return read(newest.read_text(encoding="utf-8", errors="replace"))


def table(run: Progress) -> Table:
    """A row a rule, and one for all."""
    done, total = (sum(getattr(r, key) for r in run.rules.values()) for key in ("done", "total"))
    failed = sum(len(rule.failed) for rule in run.rules.values())
    left = "ended" if run.ended else f"{duration(run.seconds_left())} left"
    shown = Table(title=f"{done} of {total} jobs done, {failed} failed, {left}")
    shown.add_column("rule", no_wrap=True)
    for name in ("done", "running", "failed", "of"):
        shown.add_column(name, justify="right")
    shown.add_column("", width=30)
    for rule in run.rules.values():
        counts = rule.done, len(rule.running), len(rule.failed), rule.total
        cells = [str(count) if count else "" for count in counts]
        cells[2] = f"[red]{cells[2]}[/red]" if cells[2] else ""
        shown.add_row(rule.name, *cells, ProgressBar(rule.total, rule.done, width=30))
    return shown


def main() -> None:
    """Draw once where there is no terminal, else every two seconds until the run has ended."""
    console = Console()
    run = latest()
    if not console.is_terminal:
        console.print(table(run))
        return
    with Live(table(run), console=console, auto_refresh=False) as live:
        while not run.ended:
            time.sleep(2)
            run = latest()
            live.update(table(run), refresh=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
