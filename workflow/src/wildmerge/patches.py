"""Changes to other packages that a run needs, each until its package has a release without it.

Every patch names the upstream report, the versions that it was tested with, and what it replaces.
Outside those versions, or where that place is gone, it is not applied, and a warning says so: then
look whether upstream has solved the problem, and remove the patch or raise its range.
"""

import importlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from threading import Lock, Timer
from typing import Any

from packaging.specifiers import SpecifierSet

from wildmerge import slurm

# Where a wrapped function stands already: a second wrap would do everything twice.
_WRAPPED: set[tuple[Any, str]] = set()


@dataclass(frozen=True)
class Patch:
    """One function of another package, replaced.

    Attributes:
        package: its name in the package index.
        versions: the versions that the patch fits, such as `>=9.27,<9.28`.
        issue: upstream's report of the problem, owner/repository#number.
        module: where the function is.
        path: the function's place in the module, such as `Class.method`.
        why: the problem in a sentence.
        replacement: what takes its place.
        wraps: whether `replacement` makes that from the function, and does not take its place
            itself.
    """

    package: str
    versions: str
    issue: str
    module: str
    path: str
    why: str
    replacement: Callable[..., Any]
    wraps: bool = False

    def apply(self) -> str | None:
        """Replace the function; returns a warning where the patch no longer fits."""
        place, name, warning = self._place()
        if place is not None:
            self._put(place, name)
        return warning

    @contextmanager
    def applied(self, warn: Callable[[str], None]) -> Iterator[None]:
        """Replace the function while a block runs; `warn` is told where the patch does not fit."""
        place, name, warning = self._place()
        if place is None:
            if warning:
                warn(warning)
            yield
            return
        original = getattr(place, name)
        self._put(place, name)
        try:
            yield
        finally:
            setattr(place, name, original)

    def _put(self, place: Any, name: str) -> None:
        original = getattr(place, name)
        if not self.wraps:
            setattr(place, name, self.replacement)
        elif (place, name) not in _WRAPPED:
            _WRAPPED.add((place, name))
            setattr(place, name, self.replacement(original))

    def _place(self) -> tuple[Any, str, str | None]:
        """What holds the function (None where the patch does not fit), its name, a warning."""
        *parents, name = self.path.split(".")
        try:
            installed = version(self.package)
        except PackageNotFoundError:
            return None, name, None
        if not SpecifierSet(self.versions).contains(installed, prereleases=True):
            return (
                None,
                name,
                f"A patch of {self.package} was written for {self.versions}, but {installed} is "
                f"installed, so it is not applied. {self.why} See {self.issue}; if that is solved, "
                "remove the patch from wildmerge/patches.py, else raise its range there.",
            )
        place = importlib.import_module(self.module)
        try:
            for parent in parents:
                place = getattr(place, parent)
            getattr(place, name)
        except AttributeError:
            return (
                None,
                name,
                f"A patch of {self.package} {installed} expected {self.module}.{self.path}, which "
                f"is not there, so it is not applied. {self.why} See {self.issue}.",
            )
        return place, name, None


def one_timer() -> Callable[[Any, float], None]:
    """A scheduler's `_schedule_reevalutation` that keeps one timer at a time."""
    lock = Lock()
    waiting = False

    def schedule(scheduler: Any, delay: float) -> None:
        """Let the scheduler look for jobs again after `delay` seconds, unless it will anyway."""
        nonlocal waiting
        with lock:
            if waiting:
                return
            waiting = True
        Timer(delay, look, [scheduler]).start()

    def look(scheduler: Any) -> None:
        nonlocal waiting
        with lock:
            waiting = False
        scheduler._open_jobs.release()

    return schedule


@cache
def can_be_asked(tool: str) -> bool:
    """Whether a command of Slurm's is there and of use: sacct is not where no accounts are kept."""
    if not shutil.which(tool):
        return False
    if tool != "sacct":
        return True
    # Any other failure, such as a data base that is away, is one that may pass.
    done = subprocess.run(["sacct", "--allocations", "--noheader"], capture_output=True, text=True)
    return not (done.returncode and "storage is disabled" in done.stderr)


def _slurm(path: str, wrap: Callable[..., Any], why: str) -> Patch:
    """A patch of the Slurm plugin; see docs/upstream/."""
    return Patch(
        package="snakemake-executor-plugin-slurm",
        versions=">=2.8,<2.9",
        issue="docs/upstream/README.md",
        module="snakemake_executor_plugin_slurm",
        path=path,
        why=why,
        replacement=wrap,
        wraps=True,
    )


def _snakemake(module: str, path: str, wrap: Callable[..., Any], why: str) -> Patch:
    """A patch of Snakemake; see docs/upstream/."""
    return Patch(
        package="snakemake",
        versions=">=9.27,<9.28",
        issue="docs/upstream/README.md",
        module=f"snakemake.{module}",
        path=path,
        why=why,
        replacement=wrap,
        wraps=True,
    )


SNAKEMAKE = (
    Patch(
        package="snakemake",
        versions=">=9.27,<9.28",
        issue="snakemake/snakemake#3744",
        module="snakemake.scheduling.job_scheduler",
        path="JobScheduler._schedule_reevalutation",
        why="Every look of the scheduler starts a timer, and every timer makes it look: each job "
        "that ends adds one more for ever, and after a thousand jobs the scheduler keeps a core "
        "busy.",
        replacement=one_timer(),
    ),
    Patch(
        package="snakemake-executor-plugin-slurm",
        versions=">=2.8,<2.9",
        issue="snakemake/snakemake-executor-plugin-slurm#38",
        module="snakemake_executor_plugin_slurm",
        path="is_query_tool_available",
        why="Where Slurm keeps no accounts, sacct is there but never answers, and the plugin turns "
        "to it while the controller is away.",
        replacement=can_be_asked,
    ),
    _slurm(
        "query_job_status",
        slurm.one_word,
        "sacct says `CANCELLED by 0`, which the plugin takes for a job that runs, so the run waits "
        "for it for ever; so it does for a preempted job that is not queued again.",
    ),
    _slurm(
        "get_submit_command",
        slurm.capped,
        "A later attempt may ask for more than a partition allows, and then never starts.",
    ),
    _slurm(
        "Executor.run_job",
        slurm.patient,
        "A submission that Slurm refuses for now uses up a job's attempts within a second.",
    ),
    _slurm(
        "Executor._report_job_error_threadsafe",
        slurm.noting_refusals,
        "A submission that Slurm refuses for now uses up a job's attempts within a second.",
    ),
    _slurm(
        "Executor._report_job_submission_threadsafe",
        slurm.knowing,
        "A submission that timed out may have been taken, and is then made twice.",
    ),
    _slurm(
        "Executor.cancel_jobs",
        slurm.cancelling_all,
        "Jobs that are being submitted while the run is interrupted are not cancelled.",
    ),
    _slurm(
        "Executor.check_active_jobs",
        slurm.noticing,
        "A job that Slurm will never start is waited for without end.",
    ),
    _slurm(
        "Executor.__post_init__",
        slurm.signing_on,
        "Nothing says whether a run that holds the lock of a folder is still alive.",
    ),
    _slurm(
        "Executor.shutdown",
        slurm.signing_off,
        "Nothing says whether a run that holds the lock of a folder is still alive.",
    ),
    _snakemake(
        # snakemake.workflow can't be imported first.
        "api",
        "Workflow._prepare_dag",
        slurm.after_dead_runs,
        "What a killed run has submitted runs on, beside the next run.",
    ),
    _snakemake(
        "jobs",
        "GroupJob.log_error",
        slurm.with_message,
        "Why a group failed is not said: `message: None`.",
    ),
    _snakemake(
        "jobs",
        "Job.restart_times",
        slurm.unless_hopeless,
        "Jobs are tried again whatever made them fail.",
    ),
    _snakemake(
        "jobs",
        "GroupJob.restart_times",
        slurm.unless_hopeless,
        "Jobs are tried again whatever made them fail.",
    ),
)


def gguf_parsed_once(reader: Callable[..., Any]) -> Patch:
    """The patch that reads the header of a GGUF file once.

    Args:
        reader: `gguf.GGUFReader`.
    """
    return Patch(
        package="transformers",
        versions=">=5.23,<6",
        issue="huggingface/transformers, load_gguf_checkpoint (modeling_gguf_pytorch_utils.py)",
        module="gguf",
        path="GGUFReader",
        why="transformers reads the header of a GGUF file three times, for the config, the weights "
        "and the tokenizer, which takes a quarter of the time to fetch a model of 135M parameters.",
        replacement=cache(reader),
    )


def apply(warn: Callable[[str], None]) -> None:
    """Apply all patches that a run of Snakemake needs; `warn` is told of each that does not fit."""
    for patch in SNAKEMAKE:
        if warning := patch.apply():
            warn(warning)
