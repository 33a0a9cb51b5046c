"""A project of its own for the tests: the workflow's own rules on pico checkpoints."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "workflow/src"
EXPERTS = ["ann", "bob", "cat", "dan"]
STUDY = {
    "description": "Every recipe on pico checkpoints.",
    "bases": ["pico"],
    "pool": "wild",
    "sizes": [2, 4],
    "draws": 1,
    "recipes": [
        "task_arithmetic",
        "ties",
        "model_stock",
        "task_arithmetic_sb",
        "ties_sb",
        "tsv_m",
        "iso_c",
    ],
    "suites": ["few"],
    "figures": ["accuracy_by_n"],
    "tables": ["success_rate"],
}


@dataclass
class Project:
    """A working folder with a config/ of its own, in which the workflow is run."""

    folder: Path

    def snakemake(self, *arguments, check=True, cores=2) -> subprocess.CompletedProcess:
        """Run the workflow here; on an unexpected failure show what it printed."""
        done = subprocess.run(
            self.command(*arguments, cores=cores), capture_output=True, text=True, env=self.env()
        )
        if check and done.returncode:
            raise AssertionError(f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def command(self, *arguments, cores=2) -> list[str]:
        command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
        command += ["--directory", self.folder, "--workflow-profile", ROOT / "profiles/default"]
        return [str(part) for part in [*command, "--cores", cores, *arguments]]

    @staticmethod
    def env() -> dict[str, str]:
        return os.environ | {"OMP_NUM_THREADS": "1"}

    def jobs(self, *arguments) -> dict[str, int]:
        """The jobs of a dry run by rule, without the total and the target itself."""
        done = self.snakemake("-n", *arguments, "--quiet", "rules")
        return counts(done.stdout + done.stderr)

    def write(self, path: str, value) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False)
        file.write_text(text, encoding="utf-8")


def wildmerge(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess:
    """Run the command `wildmerge` in a folder; on another exit code show what it printed."""
    command = [sys.executable, "-m", "wildmerge", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def counts(text: str) -> dict[str, int]:
    """Jobs by rule from Snakemake's table of jobs, the total left out."""
    rows = re.findall(r"^(\w+) +(\d+)$", text, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule != "total"}


def models_sheet(rows: list[dict]) -> str:
    """models.tsv with the columns of the project's own."""
    columns = (ROOT / "config/models.tsv").read_text().splitlines()[0].split("\t")
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def make_project(folder: Path, base, experts: dict) -> Project:
    """A project over checkpoint folders `base` and `experts`, with study `pico`, suite `few`."""
    project = Project(folder)
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.rmtree(folder / "config/studies")
    rows = [{"base": "pico", "model": "base", "repo": f"dir:{base}", "gb": "0.01"}]
    rows += [
        {"base": "pico", "model": name, "repo": f"dir:{path}", "pool": "wild", "domain": "noise"}
        for name, path in experts.items()
    ]
    project.write("config/models.tsv", models_sheet(rows))
    demo = yaml.safe_load((ROOT / "config/suites.yaml").read_text())["demo"]
    few = demo | {
        "description": "A handful of real questions.",
        "dtype": "float32",
        "tasks": {name: demo["tasks"][name] | {"questions": 6} for name in ("arc_easy", "piqa")},
    }
    project.write("config/suites.yaml", {"few": few})
    project.write("config/studies/pico.yaml", STUDY)
    choices = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    project.write("config/config.yaml", choices | {"studies": ["pico"]})
    return project
