"""How far a run of Snakemake is, from the log that it writes: done, running, failed, time left.

Everything here is pure and needs the standard library alone.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

_TIME = re.compile(r"^ *\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]")
_COUNT = re.compile(r"^(\w+) +(\d+)$")
_RULE = re.compile(r"^ *(?:local)?rule (\w+):$")
_ERROR = re.compile(r"^ *Error in rule (\w+):$")
_JOB = re.compile(r"^ +jobid: (\d+)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")
_AGAIN = re.compile(r"^Trying to restart job (\d+)\.$")
_ENDED = re.compile(r"^(Complete log|Exiting because|Nothing to be done|WorkflowError)")


@dataclass
class Rule:
    """The jobs of one rule: how many there are to do, and the ids of those that got further.

    seconds: of each finished job, from its start (on a cluster: its submission) to its end.
    """

    name: str
    total: int = 0
    running: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many have finished."""
        return len(self.seconds)


@dataclass
class Progress:
    """A run: its rules in Snakemake's order, its first and last time, whether it has ended."""

    rules: dict[str, Rule] = field(default_factory=dict)
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
    counting, error = False, False
    named: str | None = None
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
            named, error = match[1], "Error" in line
        elif named and (match := _JOB.match(line)):
            rule = run.rules.setdefault(named, Rule(named))
            (rule.failed if error else rule.running).add(match[1])
            (rule.running if error else rule.failed).discard(match[1])
            if run.now:
                started.setdefault(match[1], run.now)
            named = None
        elif match := _AGAIN.match(line):
            for rule in run.rules.values():
                if match[1] in rule.failed:
                    rule.failed.remove(match[1])
                    rule.running.add(match[1])
        elif match := _FINISHED.match(line):
            rule = run.rules.setdefault(match[2], Rule(match[2]))
            rule.running.discard(match[1])
            rule.failed.discard(match[1])
            began = started.get(match[1])
            spent = run.now - began if began and run.now else timedelta()
            rule.seconds.append(spent.total_seconds())
        elif _ENDED.match(line):
            run.ended = True
    return run
