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
    """

    package: str
    versions: str
    issue: str
    module: str
    path: str
    why: str
    replacement: Callable[..., Any]

    def apply(self) -> str | None:
        """Replace the function; returns a warning where the patch no longer fits."""
        place, name, warning = self._place()
        if place is not None:
            setattr(place, name, self.replacement)
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
        setattr(place, name, self.replacement)
        try:
            yield
        finally:
            setattr(place, name, original)

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
