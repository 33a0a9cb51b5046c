"""What a study will cost: from a dry run, measured times where there are any, stated assumptions.

Jobs ask for their time by it. Everything is pure, apart from the benchmark files that it reads.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from wildmerge.methods import METHODS
from wildmerge.study import BASE, sheets

# One constant a line, so that a site can put its own; GPU figures are those of one H100.
FLOPS = 320e12 * 0.4  # floating-point operations a second, of the peak two fifths
DISK = 1.0  # GB/s, reading and writing checkpoints
NETWORK = 0.1  # GB/s, downloads
START = 60  # s, start of a job, imports, first touch of the GPU
FACTORISING = 20  # s a GB of one checkpoint, for methods that factorise; others read and write
# Tokens that a model runs, of a suite: those of all questions, counted for the paper's suite
# (12 of its 16 tasks, and a tenth for the other four) and guessed for the rest.
TOKENS = {"paper": {"shared-prefix": 7.3e6, "hf": 36.5e6}}
OTHER_TOKENS = 1e6
LIGHT = 5  # s, rules that handle no weights
# What a job asks for at first: so many times as long as it should take, and minutes more.
MARGIN, SPARE = 3, 5
SIZED = ("download", "merge")  # rules whose outputs are checkpoints
SHARED = ("factorize", "factorize_sum", "update")  # rules whose outputs several merges read


@dataclass(frozen=True)
class Job:
    """One job of a dry run: its rule, wildcards, threads and integer resources (gpu, disk_mb)."""

    rule: str
    wildcards: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    resources: dict[str, int] = field(default_factory=dict)


@dataclass
class CostRow:
    """All jobs of one rule together.

    seconds: of all jobs; measured: how many of the jobs have a measured time; gpu_hours and
    cpu_hours: what they hold of either.
    """

    rule: str
    jobs: int = 0
    measured: int = 0
    seconds: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0


def pairs(text: str, divider: str = ", ") -> dict[str, str]:
    """Read "a=1, b=2" as Snakemake prints it."""
    return dict(part.split("=", 1) for part in text.split(divider) if "=" in part)


def read_dry_run(text: str) -> list[Job]:
    """Read the jobs that `snakemake -n` prints, in its order."""
    jobs = []
    for block in re.split(r"^(?=(?:local)?rule \w+:$)", text, flags=re.MULTILINE)[1:]:
        lines = dict(re.findall(r"^    (\w+): (.*)$", block, flags=re.MULTILINE))
        resources = pairs(lines.get("resources", ""))
        jobs.append(
            Job(
                rule=block.split(":", 1)[0].rpartition(" ")[2],
                wildcards=pairs(lines.get("wildcards", "")),
                threads=int(lines.get("threads", 1)),
                resources={name: int(v) for name, v in resources.items() if v.isdigit()},
            )
        )
    return jobs


def _seconds(path: Path) -> list[float]:
    """The seconds of each run in one of Snakemake's benchmark files."""
    with path.open(newline="") as file:
        return [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]


def read_benchmarks(
    folder: Path, of: Callable[[list[float]], float] = median
) -> dict[tuple[str, str], float]:
    """Seconds by (rule, base) of the runs below `folder`/{rule}/{base}/.

    Args:
        folder: of Snakemake's benchmark files.
        of: which of them, such as `median` or `max`.
    """
    runs: dict[tuple[str, str], list[float]] = {}
    for path in sorted(Path(folder).glob("*/*/**/*.tsv")):
        rule, base = path.relative_to(folder).parts[:2]
        runs.setdefault((rule, base), []).extend(_seconds(path))
    return {key: of(seconds) for key, seconds in runs.items()}


def spent(folder: Path, bases: Iterable[str]) -> dict[str, tuple[int, float]]:
    """Rule -> (runs, seconds of all of them) of the jobs below `folder`/{rule}/{base}/."""
    found: dict[str, tuple[int, float]] = {}
    for base in bases:
        for path in sorted(Path(folder).glob(f"*/{base}/**/*.tsv")) + sorted(
            Path(folder).glob(f"*/{base}.tsv")
        ):
            rule = path.relative_to(folder).parts[0]
            seconds = _seconds(path)
            runs, total = found.get(rule, (0, 0.0))
            found[rule] = runs + len(seconds), total + sum(seconds)
    return found


def _factorises(method: str) -> bool:
    """Whether a method's time is that of singular vectors; mergekit's own methods may be."""
    return method not in METHODS or METHODS[method].gpu


def assumed_seconds(job: Job, gb: float, members: int, method: str, backend: str) -> float:
    """Seconds that a job is assumed to take.

    Args:
        job: the job.
        gb: GB of one checkpoint of its base, in 16 bits.
        members: number of checkpoints that it merges.
        method: how it merges them.
        backend: what scores the questions, `hf` or `shared-prefix`.
    """
    match job.rule:
        case "download":
            return gb / NETWORK
        case "task_vector":
            return START + 2 * gb / DISK
        case "factorize":
            return START + 2 * gb / DISK + FACTORISING * gb
        case "update":
            return START + (members + 3) * gb / DISK
        case "merge" | "factorize_sum":
            factorising = FACTORISING * gb if _factorises(method) else 0
            return START + (members + 2) * gb / DISK + factorising
        case "evaluate":
            suite = job.wildcards["suite"]
            tokens = TOKENS.get(suite, {}).get(backend, OTHER_TOKENS)
            # Two operations a parameter and token; a parameter has two bytes.
            return START + gb / DISK + gb * 1e9 * tokens / FLOPS
    return LIGHT


@dataclass(frozen=True)
class Times:
    """How long the jobs of a project take: as measured, where they were, else as assumed.

    Attributes:
        gb: base -> GB of one checkpoint in 16 bits.
        members: (base, subset) -> the checkpoints in it.
        methods: recipe -> its merge method.
        backend: what scores the questions, `hf` or `shared-prefix`.
        measured: (rule, base) -> seconds, as `read_benchmarks` gives them.
    """

    gb: Mapping[str, float]
    members: Mapping[tuple[str, str], tuple[str, ...]]
    methods: Mapping[str, str]
    backend: str
    measured: Mapping[tuple[str, str], float]

    def is_measured(self, job: Job) -> bool:
        """Whether a job's time is a measured one."""
        return (job.rule, job.wildcards.get("base", "")) in self.measured

    def seconds(self, job: Job) -> float:
        """How long a job takes."""
        base, subset = job.wildcards.get("base", ""), job.wildcards.get("subset", "")
        if self.is_measured(job):
            return self.measured[job.rule, base]
        count = len(self.members.get((base, subset), ()))
        method = self.methods.get(job.wildcards.get("recipe", ""), "")
        return assumed_seconds(job, self.gb.get(base, 0.0), count, method, self.backend)

    def asked(self, rule: str) -> Callable[[Any, int], int]:
        """The minutes that jobs of a rule ask for, as a resource of Snakemake's.

        Three times as long as the job should take and five minutes; a later attempt asks for as
        much again.
        """

        def minutes(wildcards: Any, attempt: int) -> int:
            seconds = self.seconds(Job(rule, dict(wildcards.items())))
            return attempt * math.ceil(SPARE + MARGIN * seconds / 60)

        return minutes


def times(project: sheets.Sheets, backend: str, of: Callable[[list[float]], float] | None) -> Times:
    """The times of a project's jobs.

    Args:
        project: its config/.
        backend: what scores the questions, `hf` or `shared-prefix`.
        of: which of the measured times in the working folder count, see `read_benchmarks`; None
            for none.
    """
    return Times(
        {base: float(row["gb"]) for (base, model), row in project.models.items() if model == BASE},
        project.members,
        {name: recipe["merge_method"] for name, recipe in project.recipes.items()},
        backend,
        read_benchmarks(Path("benchmarks"), of) if of else {},
    )


def estimate(jobs: Iterable[Job], times: Times) -> list[CostRow]:
    """Add up what the jobs cost, by rule, in the order in which rules first appear."""
    rows: dict[str, CostRow] = {}
    for job in jobs:
        row = rows.setdefault(job.rule, CostRow(job.rule))
        seconds = times.seconds(job)
        row.jobs += 1
        row.measured += times.is_measured(job)
        row.seconds += seconds
        row.gpu_hours += seconds * job.resources.get("gpu", 0) / 3600
        row.cpu_hours += seconds * job.threads / 3600
    return list(rows.values())


def render(
    study: str, rows: list[CostRow], jobs: list[Job], gb: Mapping[str, float], limit: float
) -> str:
    """The plan as text: a table by rule, disk, downloads, and what rests on assumptions.

    Args:
        study: its name.
        rows: of `estimate`.
        jobs: the same jobs.
        gb: base -> GB of one checkpoint in 16 bits.
        limit: GB of merged weights that may lie on disk at a time.
    """
    size = {rule: sum(gb[j.wildcards["base"]] for j in jobs if j.rule == rule) for rule in SIZED}
    shared = sum(j.resources.get("disk_mb", 0) for j in jobs if j.rule in SHARED) / 1000
    head = f"{'rule':<15}{'jobs':>7}{'GPU-hours':>11}{'CPU-hours':>11}  times"
    lines = [f"Still to do for {study}:", "", head, "-" * len(head)]
    for row in rows:
        kind = f"{row.measured} measured, " if row.measured else ""
        rest = row.jobs - row.measured
        kind += f"{rest} assumed" if rest else ""
        lines.append(
            f"{row.rule:<15}{row.jobs:>7}{row.gpu_hours:>11.1f}{row.cpu_hours:>11.1f}"
            f"  {kind.removesuffix(', ')}"
        )
    gpu, cpu = sum(r.gpu_hours for r in rows), sum(r.cpu_hours for r in rows)
    lines += [
        f"{'total':<15}{sum(r.jobs for r in rows):>7}{gpu:>11.1f}{cpu:>11.1f}",
        "",
        f"Downloads: {size['download']:.1f} GB of checkpoints, which stay.",
        f"Merged weights: {size['merge']:.1f} GB are written and removed again; at most "
        f"{min(limit, size['merge']):.1f} GB of them lie on disk at a time.",
        f"What several merges share: {shared:.1f} GB at most, removed after the last of them.",
        f"Peak disk: {size['download'] + min(limit, size['merge']) + shared:.1f} GB.",
        "",
        "Measured times are the medians of this machine's benchmarks/, by rule and base. Assumed:",
        f"  a GPU of {FLOPS / 1e12:.0f} TFLOP/s in practice, disks of {DISK:g} GB/s, a network of "
        f"{NETWORK:g} GB/s,",
        f"  {START} s to start a job, {FACTORISING} s a GB to factorise, "
        f"{TOKENS['paper']['shared-prefix'] / 1e6:g} M tokens a model for",
        f"  suite paper (hf: {TOKENS['paper']['hf'] / 1e6:g} M), {OTHER_TOKENS / 1e6:g} M for any "
        "other. They stand in workflow/src/wildmerge/run/cost.py.",
    ]
    return "\n".join(lines)
