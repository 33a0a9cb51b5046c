"""Where the workflow lies: Snakefile, rules, scripts, schemas, captions, config, profiles, envs.

In a checkout, and in an editable install of one, they are where a reader sees them. A wheel holds
them inside the package. Needs the standard library alone.
"""

import os
from pathlib import Path

from wildmerge import WildmergeError

_PACKAGE = Path(__file__).resolve().parent
_PACKED = _PACKAGE / "_workflow"


def home() -> Path:
    """The folder of the Snakefile; `workflow/`, `config/`, `profiles/` and `envs/` lie beside it.

    Raises:
        WildmergeError: the package was copied without its workflow.
    """
    folder = _PACKED if _PACKED.is_dir() else _PACKAGE.parents[2]
    if not (folder / "Snakefile").is_file():
        raise WildmergeError(
            f"The workflow's Snakefile was expected in {folder}, but there is none: this copy of "
            "the package is not whole. Install wildmerge with pip, or run it from its checkout."
        )
    return folder


def config_folder() -> Path:
    """The sheets of this run: `config/` of the working folder if there is one, else the project's.

    A working folder with a `config/` of its own is a project of its own.
    """
    own = Path("config")
    return own if own.is_dir() else home() / "config"


def search_path(working: Path) -> Path:
    """A folder for PYTHONPATH in which this package lies, and no other.

    Jobs in an environment of their own (conda) find the package by it without an installation. In
    a checkout that is `workflow/src`. An installed package lies among all others, which must not
    come before those of the job's environment: it gets a link below `working`/.snakemake.

    Args:
        working: the folder in which the workflow runs; all nodes see it.
    """
    if not _PACKED.is_dir():
        return _PACKAGE.parent
    folder = working.resolve() / ".snakemake" / "wildmerge"
    link = folder / "wildmerge"
    if not link.is_symlink() or link.resolve() != _PACKAGE:
        folder.mkdir(parents=True, exist_ok=True)
        # Made beside it and renamed: jobs that start meanwhile find the old one or the new one.
        made = folder / f".{os.getpid()}"
        made.symlink_to(_PACKAGE)
        made.replace(link)
    return folder
