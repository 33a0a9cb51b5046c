"""Running Snakemake on the test cluster, and reading what the toy workflow's jobs noted."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cluster import Cluster, missing, wait_until

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
# The profile looks every 30 s and then less and less often; tests look sooner.
SOON = ("--slurm-init-seconds-before-status-checks", "3")


def require(accounting: bool = False) -> None:
    """Skip the test where Slurm cannot run; fail it where WILDMERGE_REQUIRE_SLURM says it must."""
    reason = missing(accounting)
    if reason and os.environ.get("WILDMERGE_REQUIRE_SLURM") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Workflow:
    """A working folder in which Snakemake runs on a cluster.

    Args:
        folder: the folder, with a Snakefile and the profiles.
        cluster: the cluster that `--profile slurm` finds.
    """

    def __init__(self, folder: Path, cluster: Cluster):
        self.folder, self.cluster = folder, cluster

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake with exactly these arguments; its output goes to the file `output`."""
        with (self.folder / "output").open("a") as output:
            return subprocess.Popen(
                [str(SNAKEMAKE), *arguments],
                cwd=self.folder,
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # Where the tests run in the background, Ctrl-C is ignored by all that they start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def run(self, *arguments: str, seconds: float = 1200) -> tuple[int, str]:
        """Exit code and output of Snakemake with exactly these arguments."""
        before = len(self.output)
        process = self.start(*arguments)
        try:
            code = process.wait(seconds)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
        return code, self.output[before:]

    def run_here(self, *command: str) -> str:
        """Standard output of a command of Slurm's in this workflow's environment."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True)
        return done.stdout

    @property
    def env(self) -> dict[str, str]:
        path = f"{SNAKEMAKE.parent}:{self.cluster.env['PATH']}"
        source = str(ROOT / "workflow/src")
        # The cluster's GPUs are granted, but no driver knows them.
        ours = {"PATH": path, "PYTHONPATH": source, "WILDMERGE_DEVICE": "cpu"}
        return {**self.cluster.env, **ours}

    @property
    def output(self) -> str:
        """All that Snakemake has printed so far."""
        path = self.folder / "output"
        return path.read_text() if path.exists() else ""

    def journal(self, event: str = "start") -> list[dict]:
        """What the toy's jobs noted, in the order of time."""
        lines = [
            json.loads(line)
            for path in (self.folder / "journal").glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        return sorted((r for r in lines if r["event"] == event), key=lambda r: r["time"])

    def counts(self, event: str = "start") -> Counter:
        """How often each of the toy's jobs started (or ended)."""
        return Counter(record["what"] for record in self.journal(event))

    def scores(self) -> str:
        """The toy's table of results."""
        return (self.folder / "results/studies/toy/scores.csv").read_text()

    def wait_for(self, count: int, event: str = "start", seconds: float = 600) -> None:
        """Wait until so many GPU jobs have started (or ended)."""
        wait_until(
            lambda: sum(r["gpus"] is not None for r in self.journal(event)) >= count,
            f"{count} jobs: {event}",
            seconds,
        )

    def fault(self, job: str, how: str | None) -> None:
        """Make one of the toy's jobs, RULE.SUBSET.RECIPE, fail in some way; None mends it."""
        path = self.folder / "faults" / job
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True) if how is None else path.write_text(how)


def overlaps(records: list[dict]) -> list[tuple]:
    """Pairs of jobs that held the same GPU of the same node at the same time."""
    held = {}
    for record in records:
        span = held.setdefault((record["node"], record["gpus"]), [])
        span.append((record["time"], record["event"], record["what"]))
    found = []
    for spans in held.values():
        spans.sort()
        for (_, first, what), (_, second, other) in itertools.pairwise(spans):
            if first == second == "start":
                found.append((what, other))
    return found
