"""Print what a study would cost: `make plan STUDY=wild`. Asks Snakemake for a dry run."""

import re
import subprocess
import sys
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.run import cost
from wildmerge.study import sheets
from wildmerge.study.plan import BASE

HOME = Path(__file__).parents[2]


def dry_run(target: str) -> str:
    """What `snakemake TARGET -n` prints.

    Raises:
        WildmergeError: with Snakemake's last words, where the dry run fails.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", HOME / "Snakefile", "-n", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join((done.stdout + done.stderr).split()[-60:])
        raise WildmergeError(f"A dry run of {target} was expected to succeed, it ended in: {words}")
    return done.stdout + done.stderr


def main(study: str) -> None:
    """Print the plan of one study, or of any other target."""
    config = Path("config") if Path("config").is_dir() else HOME / "config"
    loaded = sheets.load(config, HOME / "workflow/schemas")
    gb = {base: float(row["gb"]) for (base, model), row in loaded.models.items() if model == BASE}
    backend = sheets.read_yaml(config / "config.yaml")["backend"]
    profile = (HOME / "profiles/slurm/config.yaml").read_text()
    limit = int(re.search(r"^  disk_mb: (\d+)", profile, flags=re.MULTILINE)[1]) / 1000
    jobs = cost.read_dry_run(dry_run(study))
    measured = cost.read_benchmarks(Path("benchmarks"))
    methods = {name: recipe["merge_method"] for name, recipe in loaded.recipes.items()}
    rows = cost.estimate(jobs, gb, loaded.members, methods, backend, measured)
    print(cost.render(study, rows, jobs, gb, limit))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except WildmergeError as error:
        sys.exit(str(error))
