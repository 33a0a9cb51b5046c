"""Start Snakemake on the workflow of this folder."""

import sys
from pathlib import Path

from wildmerge.home import home


def command(*arguments: str) -> list[str]:
    """`snakemake ARGUMENTS`, on this folder's Snakefile if it has one, else on the project's."""
    words = [sys.executable, "-m", "snakemake"]
    if not Path("Snakefile").is_file():
        words += ["--snakefile", str(home() / "Snakefile")]
    return [*words, *arguments]
