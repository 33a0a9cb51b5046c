"""How far a run of Snakemake is, from the logs of it and of its jobs: done, failed, and why.

Needs the standard library alone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from wildmerge.words import NO_OTHER_TRY

_TIME = re.compile(r"^ *\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]")
_COUNT = re.compile(r"^(\w+) +(\d+)$")
_RULE = re.compile(r"^ *(?:local)?rule (\w+):$")
_ERROR = re.compile(r"^ *Error in rule (\w+):$")
_JOB = re.compile(r"^ +jobid: (\d+)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")
_AGAIN = re.compile(r"^Trying to restart job (\S+)\.$")
_GROUP = re.compile(r"^Group (\S+) holds jobs ([\d, ]+)\.$")
_RUN = re.compile(r"^SLURM run ID: (\S+)$")
_SUBMITTED = re.compile(r"^Job (\S+) has been submitted with SLURM jobid (\d+) \(log: (.*)\)\.$")
_MESSAGE = re.compile(r"^ +message: (.*)$")
_LOG = re.compile(r"^ +log: (.*?)(?: \(check log.*)?$")
_ENDED = re.compile(r"^(Complete log|Exiting because|Nothing to be done|WorkflowError)")


@dataclass
class Rule:
    """The jobs of one rule: how many there are to do, and the ids of those that got further.

    running: on a cluster also those that wait in its queue; again: of these, those that have failed
    before. seconds: of each finished job, from its start (on a cluster: its submission) to its end.
    """

    name: str
    total: int = 0
    running: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many have finished."""
        return len(self.seconds)


@dataclass
class Error:
    """A job that has failed: what Snakemake or Slurm says of it, its log, and Slurm's."""

    rule: str
    said: str = ""
    log: str = ""
    slurm: str = ""


@dataclass
class Progress:
    """A run: its rules in Snakemake's order, its first and last time, whether it has ended.

    slurm: the name of its jobs on Slurm; submitted: id of a job -> its number there; here: ids of
    the jobs that don't go there; errors: id of a job -> how it failed last.
    """

    rules: dict[str, Rule] = field(default_factory=dict)
    slurm: str | None = None
    submitted: dict[str, str] = field(default_factory=dict)
    here: set[str] = field(default_factory=set)
    errors: dict[str, Error] = field(default_factory=dict)
    began: datetime | None = None
    now: datetime | None = None
    ended: bool = False

    def seconds_left(self) -> float | None:
        """At the rate so far; None before the first job has finished.

        A job to come is taken to be as long as the mean of its rule's, of all rules' where none of
        its own has finished; as many run at a time as did on average.
        """
        spent = [s for rule in self.rules.values() for s in rule.seconds]
        if not sum(spent) or not self.began or not self.now or self.now <= self.began:
            return None
        at_a_time = max(1.0, sum(spent) / (self.now - self.began).total_seconds())
        left = 0.0
        for rule in self.rules.values():
            mean = sum(rule.seconds) / rule.done if rule.done else sum(spent) / len(spent)
            left += mean * max(0, rule.total - rule.done - len(rule.failed))
        return left / at_a_time


def read_log(text: str) -> Progress:
    """Read a log of Snakemake, as far as it goes."""
    run = Progress()
    started: dict[str, datetime] = {}
    groups: dict[str, list[str]] = {}
    slurm_logs: dict[str, str] = {}
    counting, error, local = False, False, False
    named: str | None = None
    message, failing = "", Error("")
    for line in text.splitlines():
        if match := _TIME.match(line):
            run.now = datetime.strptime(match[1], "%a %b %d %H:%M:%S %Y")
            run.began = run.began or run.now
        elif line == "Job stats:":
            counting, run.rules = True, {}
        elif counting and (match := _COUNT.match(line)):
            if match[1] == "total":
                counting = False
            else:
                run.rules[match[1]] = Rule(match[1], int(match[2]))
        elif match := _RULE.match(line) or _ERROR.match(line):
            named, error, message = match[1], "Error" in line, ""
            local, failing = "localrule" in line, Error("")
        elif named and error and (match := _MESSAGE.match(line)):
            message = match[1]
        elif failing.rule and (match := _LOG.match(line)):
            failing.log = match[1].split(", ")[0]
            failing = Error("")
        elif named and (match := _JOB.match(line)):
            rule = run.rules.setdefault(named, Rule(named))
            (rule.failed if error else rule.running).add(match[1])
            (rule.running if error else rule.failed).discard(match[1])
            if local:
                run.here.add(match[1])
            if run.now:
                started.setdefault(match[1], run.now)
            failing = Error("")
            if error:
                number = run.submitted.pop(match[1], "")
                failing = Error(named, message, slurm=slurm_logs.get(number, ""))
                run.errors[match[1]] = failing
            named = None
        elif match := _GROUP.match(line):
            groups[match[1]] = match[2].split(", ")
        elif match := _RUN.match(line):
            run.slurm = match[1]
        elif match := _SUBMITTED.match(line):
            slurm_logs[match[2]] = match[3]
            run.submitted |= dict.fromkeys(groups.get(match[1], [match[1]]), match[2])
        elif match := _AGAIN.match(line):
            for one in groups.get(match[1], [match[1]]):
                for rule in run.rules.values():
                    if one in rule.failed:
                        rule.failed.remove(one)
                        rule.running.add(one)
                        rule.again.add(one)
        elif match := _FINISHED.match(line):
            rule = run.rules.setdefault(match[2], Rule(match[2]))
            for ids in (rule.running, rule.failed, rule.again):
                ids.discard(match[1])
            began = started.get(match[1])
            spent = run.now - began if began and run.now else timedelta()
            rule.seconds.append(spent.total_seconds())
        elif _ENDED.match(line):
            run.ended = True
    return run


def failures(run: Progress) -> list[str]:
    """What has failed for good, and why, in a paragraph each that names the log.

    Of the jobs that fail together, in one job of Slurm's, just the one that made the others fail.
    """
    together: dict[str, list[Error]] = {}
    for rule in run.rules.values():
        for one in sorted(rule.failed, key=int):
            if error := run.errors.get(one):
                together.setdefault(error.slurm or one, []).append(error)
    return [_failure(errors) for errors in together.values()]


def _failure(errors: list[Error]) -> str:
    """One paragraph for jobs that failed together."""
    written = [error for error in errors if error.log and Path(error.log).exists()]
    explained = [(error, why) for error in written if (why := _why(Path(error.log)))]
    if explained:
        error, why = explained[0]
    else:
        error = max(written, key=lambda one: Path(one.log).stat().st_mtime, default=errors[0])
        why = error.said if error.said not in ("", "None") else "it ended without a word."
    name = error.log.removeprefix("logs/").removesuffix(".log").replace("/", " ", 1) or error.rule
    logs = [log for log in (error.log, error.slurm) if log and Path(log).exists()]
    return f"{name}: {why}" + (f"\n  Log: {', '.join(logs)}" if logs else "")


def _why(log: Path) -> str:
    """The error that a job's log ends with, in a paragraph; empty where it ends otherwise."""
    lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    if not lines or "Log: " not in lines[-1]:
        return ""
    if lines[-1].startswith("Log: "):  # a WildmergeError, said in words
        end = lines[:-1]
        start = max((number for number, line in enumerate(end) if not line), default=-1)
        said = " ".join(line for line in end[start + 1 :] if line != NO_OTHER_TRY)
        return said.partition(": ")[2] or said
    # Python's own words come before, after an empty line.
    return next((line for line in reversed(lines[:-1]) if line), "")


def slurm_states(rows: str) -> Mapping[str, str]:
    """Number of a job -> its state, as `squeue --format="%i %T"` prints them."""
    return dict(row.split(None, 1) for row in rows.splitlines() if " " in row)


def waiting(run: Progress, rule: Rule, states: Mapping[str, str]) -> int:
    """How many of a rule's running jobs wait in Slurm's queue, or to be taken into it."""
    numbers = [run.submitted.get(one) for one in rule.running - run.here]
    return sum(number is None or states.get(number) == "PENDING" for number in numbers)


def summary(logs: Iterable[str]) -> str:
    """What a run that has ended in failure says last: what failed, why, and where its log is.

    Args:
        logs: paths of the run's own logs.
    """
    texts = [Path(log).read_text(encoding="utf-8", errors="replace") for log in logs]
    failed = failures(read_log("\n".join(texts)))
    if not failed:
        return "The run ended before its jobs were done; its log above says why."
    count = "One job failed" if len(failed) == 1 else f"{len(failed)} jobs failed"
    return "\n".join(
        [
            f"{count}; what depends on it was not made:",
            *failed,
            "Correct that and type the same again: it makes this and what depends on it, no more.",
        ]
    )
